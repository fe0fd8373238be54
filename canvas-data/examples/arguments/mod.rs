//! Options of a program's arguments: `split=train`, `captions=short,long`, ..

use canvas_data::{CaptionRules, Format, Options, TextRule};

/// What `NAME=VALUE` arguments say; the error names the one that is not known.
pub fn options(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    for argument in arguments {
        let unknown = || {
            format!("{argument}: expected format= split= image= images= captions= weights= text= required=")
        };
        let (name, value) = argument.split_once('=').ok_or_else(unknown)?;
        match (name, value) {
            ("format", "folder") => options.format = Some(Format::Folder),
            ("format", "shards") => options.format = Some(Format::Shards),
            ("format", "table") => options.format = Some(Format::Table),
            ("split", split) => options.split = Some(split.to_owned()),
            ("image", image) => options.image = Some(image.to_owned()),
            ("images", folder) => options.images = Some(folder.into()),
            ("captions", names) => options.captions = names.split(',').map(str::to_owned).collect(),
            ("weights", weights) => options.weights = Some(weights.to_owned()),
            ("text", "lines") => options.text = TextRule::Lines,
            ("text", "first") => options.text = TextRule::FirstLine,
            ("text", "whole") => options.text = TextRule::Whole,
            ("required", "no") => options.rules = CaptionRules { required: false, ..CaptionRules::default() },
            _ => return Err(unknown()),
        }
    }
    Ok(options)
}
