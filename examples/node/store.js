// Everything that is said to Postgres.

import pg from "pg";

const COLLECTION = "articles";
const SEARCH_SECONDS = 5;

export const pool = new pg.Pool({
  connectionString: process.env.PGCLIP_DATABASE_URL,
  max: 10,
  connectionTimeoutMillis: 5000,
});
// An idle connection that breaks is replaced; without a listener the process would end.
pool.on("error", (error) => console.error("idle connection:", error.message));

// Runs work in a transaction: committed when it returns, rolled back when it throws.
async function transaction(work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query("BEGIN");
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK").catch((failure) => (broken = failure));
    throw error;
  } finally {
    client.release(broken); // a connection that can't even roll back is not used again
  }
}

// Adds an article and submits it, both or neither. Returns the item's key.
export function articleAdded(title, body) {
  return transaction(async (client) => {
    const article = await client.query(
      "INSERT INTO article (title, body) VALUES ($1, $2) RETURNING id",
      [title, body],
    );
    const { id } = article.rows[0];
    const item = await client.query(
      `SELECT item_key FROM pgclip.submit_text(
         body => $1, key => $2, collection => $3, metadata => $4)`,
      [body, `article-${id}`, COLLECTION, { article: Number(id), title }],
    );
    return item.rows[0].item_key;
  });
}

// Submits a picture's bytes. Returns the item's key.
export async function pictureAdded(key, image) {
  const item = await pool.query(
    "SELECT item_key FROM pgclip.submit_image(key => $1, image => $2, collection => $3)",
    [key, image, COLLECTION],
  );
  return item.rows[0].item_key;
}

// The k nearest articles and pictures.
export async function search(query, k) {
  // A statement of its own, outside a transaction: workers must see what is asked for.
  await pool.query("CALL pgclip.embed(query => $1, timeout => make_interval(secs => $2))", [
    query,
    SEARCH_SECONDS,
  ]);
  const hits = await pool.query(
    `SELECT h.key, h.kind, h.score, h.labels, a.title
     FROM pgclip.search($1, k => $2, collection => $3) h
     LEFT JOIN article a ON a.id = (h.metadata ->> 'article')::bigint
     ORDER BY h.score DESC`,
    [query, k, COLLECTION],
  );
  return hits.rows;
}

// An item's state and labels; undefined if there is none.
export async function itemOf(key) {
  const items = await pool.query(
    `SELECT i.key, i.kind, i.state, i.reason, i.error,
            ARRAY(SELECT l.label FROM pgclip.labels l
                  WHERE l.item_id = i.id AND l.set = 'general' ORDER BY l.score DESC) AS labels
     FROM pgclip.items i WHERE i.collection = $1 AND i.key = $2`,
    [COLLECTION, key],
  );
  return items.rows[0];
}
