-- Words that label sets are made of: prompt templates, and what is in pictures otherwise.

-- Prompt templates by name: "one"; "seven", which together do best on ImageNet; "eighty", all that
-- CLIP was measured with there (Radford et al. 2021, arXiv:2103.00020, section 3.1.4, and the
-- notebook on prompts that was published with it). Raises PC001.
CREATE FUNCTION pgclip.label_templates(name text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_templates text[] := CASE name
        WHEN 'one' THEN ARRAY['a photo of a {}.']
        WHEN 'seven' THEN ARRAY[
            'itap of a {}.', 'a bad photo of the {}.', 'a origami {}.',
            'a photo of the large {}.', 'a {} in a video game.', 'art of the {}.',
            'a photo of the small {}.']
        WHEN 'eighty' THEN
            ARRAY(SELECT format('%s of %s {}.', what, article)
                  FROM unnest(ARRAY[
                      'a sculpture', 'a rendering', 'graffiti', 'a tattoo', 'a bad photo',
                      'a cropped photo', 'a bright photo', 'a dark photo', 'a drawing',
                      'a close-up photo', 'a black and white photo', 'a painting',
                      'a pixelated photo', 'a jpeg corrupted photo', 'a blurry photo',
                      'a good photo', 'a doodle', 'a sketch', 'a low resolution photo',
                      'a rendition', 'art', 'itap'
                  ]) what CROSS JOIN unnest(ARRAY['a', 'the']) article)
            || ARRAY(SELECT format('a photo of %s %s {}.', article, how)
                     FROM unnest(ARRAY['hard to see', 'clean', 'dirty', 'cool', 'nice', 'weird',
                                       'large', 'small']) how
                     CROSS JOIN unnest(ARRAY['a', 'the']) article)
            || ARRAY(SELECT format('%s %s {}.', article, what)
                     FROM unnest(ARRAY['embroidered', 'plastic', 'origami', 'toy', 'cartoon',
                                       'plushie']) what
                     CROSS JOIN unnest(ARRAY['a', 'the']) article)
            || ARRAY['a {} in a video game.', 'the {} in a video game.', 'a photo of many {}.',
                     'a photo of my {}.', 'a photo of the {}.', 'a photo of one {}.',
                     'a photo of a {}.', 'itap of my {}.'] END;
BEGIN
    IF v_templates IS NULL THEN
        RAISE EXCEPTION 'templates are named one, seven or eighty, not %', name
            USING ERRCODE = 'PC001';
    END IF;
    RETURN v_templates;
END $$;

-- Common words for what may be seen or spoken of: a background for labels that are rarer. What fits
-- these better than any label is none of them (Jiang et al. 2024, arXiv:2403.20078).
CREATE FUNCTION pgclip.background_words() RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT string_to_array(
        'air area art back body book business car case child city company country day door ' ||
        'end eye fact family father force friend game girl government group hand head health ' ||
        'history home hour house idea information job law level life line man minute money ' ||
        'month morning mother name night number office parent part party people person place ' ||
        'point policy power president problem program question reason result room school ' ||
        'service side state story student study system teacher team thing time war water way ' ||
        'week woman word work world year apple ball bag bank bed bird boat bottle box bread ' ||
        'bridge bus cake camera candle cat chair cheese church clock cloud coat coin computer ' ||
        'cow cup desk dog dress duck egg elephant farm fish flag flower fork fox frog garden ' ||
        'glass goat grass hat horse ice insect island key king kitchen knife lamp leaf letter ' ||
        'lion map meat milk mirror monkey moon mountain mouse mouth music nail needle nose ' ||
        'nut onion orange oven paint paper pencil phone pig plane plant plate pocket potato ' ||
        'queen radio rain ring river road rock roof rope rose salt sea sheep ship shirt shoe ' ||
        'shop sky snake snow soap sock spider spoon star stone street sugar sun table tail ' ||
        'tea tiger toe tomato tooth tower toy train tree truck umbrella vegetable village ' ||
        'wall watch wheel whale wind window wing wolf worm arrow heart smile finger face baby ' ||
        'doctor farmer police singer pilot animal landscape building vehicle tool document ' ||
        'sign logo symbol scene object picture text pattern shape colour', ' ')
$$;
