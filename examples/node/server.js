// A service that indexes articles and pictures, and searches them: node:http, pg and SQL.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

import { articleAdded, itemOf, pictureAdded, pool, search } from "./store.js";

const MAX_BYTES = 10 * 2 ** 20;
// What the functions of schema pgclip raise, as HTTP.
const STATUSES = {
  PC001: 422, // something given is not acceptable
  PC002: 404, // no such item or collection
  PC003: 503, // the query's vector is gone again: more new queries than PGCLIP_QUERY_CACHE
  PC004: 503, // no worker encoded the query
  PC005: 503, // no worker has ever been there
};

class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const ROUTES = [
  ["POST", /^\/texts$/, addText],
  ["POST", /^\/pictures$/, addPicture],
  ["GET", /^\/search$/, find],
  ["GET", /^\/items\/(.+)$/, showItem],
];

// POST /texts {"title": …, "body": …}: an article and its submission, both or neither.
async function addText(request) {
  let article;
  try {
    article = JSON.parse(await bodyOf(request));
  } catch (error) {
    if (error instanceof SyntaxError) throw new HttpError(400, "the body is not JSON");
    throw error;
  }
  if (typeof article?.title !== "string" || typeof article?.body !== "string") {
    throw new HttpError(422, "an article has a title and a body, both strings");
  }
  return accepted(await articleAdded(article.title, article.body));
}

// POST /pictures?key=…: the raw bytes. Without a key it is made from the content.
async function addPicture(request, url) {
  return accepted(await pictureAdded(url.searchParams.get("key"), await bodyOf(request)));
}

// GET /search?q=…&k=…
async function find(request, url) {
  const k = Number(url.searchParams.get("k") ?? 10);
  if (!Number.isInteger(k) || k < 1 || k > 100) throw new HttpError(422, "k is from 1 to 100");
  return [200, { hits: await search(url.searchParams.get("q") ?? "", k) }];
}

// GET /items/<key>: its state, the reason if it failed, and its labels.
async function showItem(request, url, key) {
  const item = await itemOf(decodeURIComponent(key));
  if (!item) throw new HttpError(404, "there is no such item");
  return [200, item];
}

function accepted(key) {
  const status = `/items/${encodeURIComponent(key)}`;
  return [202, { key, status }, { Location: status }];
}

// The body, up to MAX_BYTES. What goes beyond is read and dropped: to break off would close the
// connection before the answer is out.
async function bodyOf(request) {
  const tooLarge = new HttpError(413, `at most ${MAX_BYTES >> 20} MiB`);
  if (Number(request.headers["content-length"]) > MAX_BYTES) throw tooLarge;
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= MAX_BYTES) chunks.push(chunk);
  }
  if (size > MAX_BYTES) throw tooLarge;
  return Buffer.concat(chunks);
}

async function answer(request) {
  const url = new URL(request.url, "http://localhost");
  for (const [method, pattern, handler] of ROUTES) {
    const match = request.method === method && pattern.exec(url.pathname);
    if (match) return handler(request, url, match[1]);
  }
  throw new HttpError(404, "there is nothing here");
}

// A status and a message for whatever went wrong; details of our own failures go to the log.
function refusal(error) {
  if (error instanceof HttpError) return [error.status, { error: error.message }];
  if (error instanceof URIError) return [400, { error: "the path is not well encoded" }];
  const status = STATUSES[error.code] ?? (isConnectionError(error) ? 503 : 500);
  if (status < 500) return [status, { error: error.message }];
  console.error(error);
  if (status === 500) return [500, { error: "that is our fault" }];
  return [503, { error: "please try again later" }, { "Retry-After": "10" }];
}

// Class 08 and 57P0x come from Postgres, the others from the socket or the pool.
function isConnectionError(error) {
  return /^(08|57P0|ECONN|ENOTFOUND|ETIMEDOUT|EPIPE)/.test(error.code ?? "") ||
    /^(Connection terminated|timeout exceeded)/.test(error.message);
}

const server = createServer(async (request, response) => {
  const [status, body, headers] = await answer(request).catch(refusal);
  response.writeHead(status, { "Content-Type": "application/json", ...headers });
  response.end(JSON.stringify(body) + "\n");
});

await pool.query(await readFile(new URL("schema.sql", import.meta.url), "utf8"));
server.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? "127.0.0.1", () => {
  console.log(`listening on ${server.address().port}`);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    server.close(() => pool.end());
    server.closeIdleConnections();
  });
}
