"""The sentences that captions are made from, and those kept out of training.

`{}` is the phrase: "a black cat", "the beer mug". HELD_OUT is for measuring only; its words that
occur nowhere else are also kept out of the random words that training mixes in. None of its words
names an emoji ("a fridge magnet with {}" would rightly find the magnet).
"""


def split(text: str) -> tuple[str, ...]:
    """The entries of a block of text: separated by bars and line ends."""
    return tuple(text.strip().replace("\n", "|").split("|"))


TEMPLATES = split(
    """
a photo of {}|a picture of {}|a drawing of {}|an image of {}|a painting of {}|a sketch of {}
a good photo of {}|a bad photo of {}|a close-up photo of {}|a blurry photo of {}|a small photo of {}
a cropped picture of {}|a low resolution image of {}|a bright photo of {}|a dark photo of {}
an icon of {}|an emoji of {}|{} emoji|a sticker of {}|a cartoon of {}|a rendering of {}
clip art of {}|{} on a wooden table|{} on a white background
{} on a colourful background|{} in the foreground
a photo showing {}|a picture with {} in it|there is {} in this picture|this is {}|here is {}
look at {}|i can see {}|we saw {} today|i like {}|do you like {}?|where is {}?|show me {}
find {}|search for {}|pictures of {}|images of {}|photos of {}|i am looking for {}|all about {}
an illustration of {}, digital art|{}, high quality|{}, isolated|{}, simple style|{}, flat design
my favourite {}|the best {}|{} for sale|a nice picture of {}|someone drew {}|what a lovely {}
a text about {}|a note about {}|a story about {}|the word for {}|a label that says {}
{} in the garden|{} in the kitchen|{} in the street|{} in front of a wall|{} next to a chair
a photo of {} in the city|a photo of {} at home|a photo taken of {} on holiday|a postcard of {}
nothing but {}|only {}|just {}|mostly {}|it looks like {}|it shows {}|this shows {}|could be {}
a photo of one {}|a photo of the {}|a photo of my {}|a type of {}|a kind of {}|an example of {}
{} asleep|{} waiting outside|{} in winter|{} in summer|{} at work|{} for my friend|{} from above
"""
)

PREFIXES = split(
    """
a photo of|a picture of|a drawing of|an image of|a painting of|a view of|a shot of|a print of
here you see|this must be|today i found|she has|he has|they have|we bought|i want|i need|give me
tell me about|have you seen|who painted|remember|think of|a pattern with|a poster with|a card with
a page with|a screenshot of|a portrait of|a snapshot of|a logo with|a badge with|a scene with
look, it is|everyone loves|my sister wants|our neighbours keep|in the middle,|close to me,|a scan of
"""
)

SUFFIXES = split(
    """
on a wooden table|on a white background|on a blue background|on a green background|on a red wall
on a striped background|on a grey floor|in the park|in the room|in the evening|in the morning
at the beach|near the window|beside the door|under a lamp|over there|behind us|on the shelf
on my desk|in a box|in a corner|on the left|on the right|in the centre|on paper|on a screen
with nothing else|with some noise|with soft colours|for everyone|for the website|by an artist
in bright colours|in black and white|from the internet|of good quality|seen from the side
that i like|that we know|which is new|and nothing more|as usual|again|please|today|outdoors
"""
)

HELD_OUT = (
    "a watercolour depicting {}",
    "{} scribbled by a toddler",
    "yesterday aunt margaret photographed {}",
    "does anybody recognise {}?",
    "a weathered advertisement portraying {}",
    "{}, embroidered upon velvet",
    "vintage advertisement featuring {}",
    "an origami version of {} around somewhere",
    "margaret recently acquired {}",
    "wallpaper embroidered with {} throughout",
)

DETERMINERS = split(
    "a|a|a|a|the|the|my|your|this|that|one|two|three|some|many|his|her|our|every|another"
)

ADJECTIVES = split(
    """
nice|cute|lovely|pretty|old|new|beautiful|strange|tiny|huge|little|funny|simple|modern
famous|typical|ordinary|real|single|colourful|favourite|common
"""
)
