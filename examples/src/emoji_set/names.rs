//! Which emoji the small set has, and what they are called: tables.

/// Names that get another caption, so that the same words mean the same thing throughout.
pub(super) const RENAMED: [(&str, &str); 4] = [
    ("black large square", "black square"),
    ("white large square", "white square"),
    ("large orange diamond", "orange diamond"),
    ("large blue diamond", "blue diamond"),
];

/// The set [`Which::Simple`](super::Which::Simple): names as the crate `emojis` spells them, by kind.
///
/// Chosen by eye: pictures that differ at 32 x 32 after a blur, so that the nearest picture can be asked for;
/// names of few words; words that come back in other names.
#[rustfmt::skip]
pub(super) const SIMPLE: &[(&str, &[&str])] = &[
    ("hearts", &[
        "red heart", "pink heart", "orange heart", "yellow heart", "green heart", "blue heart",
        "light blue heart", "purple heart", "brown heart", "black heart", "grey heart", "white heart",
        "broken heart",
    ]),
    ("circles", &[
        "red circle", "orange circle", "yellow circle", "green circle", "blue circle", "purple circle",
        "brown circle", "black circle", "white circle", "hollow red circle",
    ]),
    ("squares", &[
        "red square", "orange square", "yellow square", "green square", "blue square", "purple square",
        "brown square", "black large square", "white large square",
    ]),
    ("diamonds", &[
        "large orange diamond", "large blue diamond",
    ]),
    ("fruit", &[
        "grapes", "watermelon", "tangerine", "lemon", "lime", "banana", "pineapple", "red apple",
        "green apple", "pear", "peach", "cherries", "strawberry", "blueberries", "kiwi fruit",
    ]),
    ("vegetables", &[
        "tomato", "avocado", "eggplant", "carrot", "ear of corn", "hot pepper", "cucumber", "broccoli",
        "mushroom",
    ]),
    ("food", &[
        "bread", "croissant", "pretzel", "pancakes", "cheese wedge", "poultry leg", "bacon", "hamburger",
        "french fries", "pizza", "hot dog", "taco", "egg", "popcorn", "rice ball", "sushi",
        "soft ice cream", "doughnut", "cookie", "birthday cake", "cupcake", "chocolate bar", "candy",
        "lollipop", "hot beverage", "teapot", "wine glass", "beer mug",
    ]),
    ("animals", &[
        "monkey face", "dog face", "dog", "wolf", "fox", "cat face", "cat", "black cat", "lion",
        "tiger face", "horse face", "unicorn", "zebra", "cow face", "pig face", "pig", "mouse face",
        "rabbit face", "bear", "polar bear", "koala", "panda", "elephant", "giraffe", "camel", "hedgehog",
        "bat", "chicken", "hatching chick", "baby chick", "bird", "black bird", "penguin", "duck", "owl",
        "flamingo", "parrot", "frog", "crocodile", "turtle", "snake", "dragon face", "T-Rex",
        "spouting whale", "dolphin", "fish", "tropical fish", "octopus", "crab", "snail", "butterfly",
        "honeybee", "lady beetle", "spider",
    ]),
    ("faces", &[
        "grinning face", "face with tears of joy", "smiling face with halo",
        "smiling face with heart-eyes", "star-struck", "face with medical mask", "hot face", "cold face",
        "exploding head", "cowboy hat face", "partying face", "smiling face with sunglasses", "nerd face",
        "loudly crying face", "enraged face", "sleeping face", "smiling face with horns", "skull",
        "pile of poo", "clown face", "ogre", "ghost", "alien", "robot",
    ]),
    ("sky", &[
        "sun", "crescent moon", "star", "ringed planet", "cloud", "rainbow", "high voltage", "snowflake",
        "snowman", "fire", "droplet", "umbrella",
    ]),
    ("plants", &[
        "cherry blossom", "rose", "sunflower", "tulip", "seedling", "evergreen tree", "deciduous tree",
        "palm tree", "cactus", "four leaf clover", "maple leaf",
    ]),
    ("vehicles", &[
        "automobile", "taxi", "police car", "bus", "fire engine", "tractor", "bicycle", "locomotive",
        "sailboat", "airplane", "helicopter", "rocket",
    ]),
    ("things", &[
        "house", "castle", "tent", "balloon", "wrapped gift", "Christmas tree", "jack-o-lantern",
        "trophy", "soccer ball", "basketball", "game die", "pool 8 ball", "glasses", "t-shirt", "jeans",
        "crown", "top hat", "bell", "guitar", "drum", "television", "camera", "light bulb", "green book",
        "blue book", "orange book", "money bag", "pencil", "key", "hammer", "scissors", "bomb", "magnet",
        "alarm clock", "gem stone",
    ]),
    ("symbols", &[
        "up arrow", "right arrow", "check mark button", "cross mark", "no entry", "stop sign", "warning",
        "red question mark", "red exclamation mark", "plus", "musical note", "yin yang", "chequered flag",
    ]),
];
