//! Chat templates: what a language model was taught to read around a prompt.

mod clock;
mod syntax;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value as Variable;
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a chat was not written down.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file has no template that can be read.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The template refused the chat, or failed on it.
    #[error("the chat template of {}: {message}", path.display())]
    Render {
        /// The file.
        path: PathBuf,
        /// What it said.
        message: String,
    },
}

/// What is said in a message. Templates tell the two forms apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A list of texts, as models have them that also see pictures.
    Parts(Vec<String>),
}

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: Content,
}

impl Message {
    /// A message whose content is a text.
    pub fn new(role: &str, text: &str) -> Self {
        Self { role: role.to_owned(), content: Content::Text(text.to_owned()) }
    }

    /// A message whose content is a list of one text: Flux.2's.
    pub fn part(role: &str, text: &str) -> Self {
        Self { role: role.to_owned(), content: Content::Parts(vec![text.to_owned()]) }
    }

    /// As templates see it.
    fn variable(&self) -> Variable {
        let part = |text: &String| Variable::from_pairs([("type", "text"), ("text", text.as_str())]);
        let content = match &self.content {
            Content::Text(text) => Variable::from(text.as_str()),
            Content::Parts(parts) => parts.iter().map(part).collect(),
        };
        Variable::from_pairs([("role", Variable::from(self.role.as_str())), ("content", content)])
    }
}

/// The chat template of a published tokenizer, which writes a chat down as transformers' `apply_chat_template` does
/// with `tokenize=False`.
///
/// # Differs from transformers
/// Templates are run by minijinja: what prints `True` or `None` there prints `true` or `none` here, and of Python's methods
/// of strings and lists there are those that minijinja-contrib has. The clock is UTC's.
///
/// # Example
/// ```
/// use canvas_text::{ChatTemplate, Message};
///
/// let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}\
///     {% if add_generation_prompt %}<assistant>{% if enable_thinking is false %}...{% endif %}{% endif %}";
/// let chat = ChatTemplate::new(template, [("eos_token", "</s>")])?;
/// let says = [Message::new("user", "a red cat")];
/// assert_eq!(chat.render(&says, true, None)?, "<user>a red cat</s><assistant>");
/// assert_eq!(chat.render(&says, true, Some(false))?, "<user>a red cat</s><assistant>...");
/// # Ok::<(), canvas_text::ChatError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Special tokens by their meaning: `bos_token` and so on.
    tokens: BTreeMap<String, String>,
    path: PathBuf,
}

/// Meanings of special tokens that templates know.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl ChatTemplate {
    /// From the text of a template, and the special tokens by their meaning (`bos_token`, `eos_token`, ..).
    ///
    /// # Errors
    /// If it is no template.
    pub fn new<'a>(
        template: &str,
        tokens: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ChatError> {
        let tokens = tokens.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        Self::of(Path::new("the text"), template, tokens)
    }

    /// Reads the template of a `tokenizer` folder: `chat_template.jinja`, else `chat_template.json`, else what
    /// `tokenizer_config.json` says, of several the one named `default`. `None` where there is none.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>, ChatError> {
        let config = folder.join("tokenizer_config.json");
        let settings = if config.exists() { json(&config)? } else { Value::Null };
        let named = |name: &&str| Some(((*name).to_owned(), token(&settings[*name])?));
        let tokens: BTreeMap<String, String> = TOKENS.iter().filter_map(named).collect();
        let (own, wrapped) = (folder.join("chat_template.jinja"), folder.join("chat_template.json"));
        let (path, text) = if own.exists() {
            let text = read(&own)?;
            (own, text)
        } else if wrapped.exists() {
            let found = chosen(&wrapped, &json(&wrapped)?)?.ok_or_else(|| missing(&wrapped))?;
            (wrapped, found)
        } else {
            let Some(found) = chosen(&config, &settings)? else { return Ok(None) };
            (config, found)
        };
        Self::of(&path, &text, tokens).map(Some)
    }

    fn of(path: &Path, template: &str, tokens: BTreeMap<String, String>) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the usual signs"));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", clock::now);
        environment.add_filter("tojson", |value: Variable| syntax::python_json(&value));
        let add = environment.add_template_owned("chat", syntax::of_minijinja(template));
        add.map_err(|error| wrong(path, says(&error)))?;
        Ok(Self { environment, tokens, path: path.to_owned() })
    }

    /// Writes a chat down. `generation` asks for the beginning of the model's answer behind it
    /// (`add_generation_prompt`), and `thinking`, where it is given, says whether the model is to think aloud before
    /// it answers (`enable_thinking`).
    ///
    /// # Errors
    /// If the template refuses these messages, or fails on them.
    pub fn render(
        &self,
        messages: &[Message],
        generation: bool,
        thinking: Option<bool>,
    ) -> Result<String, ChatError> {
        let none = Variable::from(());
        let mut known: BTreeMap<&str, Variable> = BTreeMap::from([
            ("messages", messages.iter().map(Message::variable).collect()),
            ("tools", none.clone()),
            ("documents", none),
            ("add_generation_prompt", generation.into()),
        ]);
        known.extend(self.tokens.iter().map(|(name, text)| (name.as_str(), text.as_str().into())));
        known.extend(thinking.map(|thinking| ("enable_thinking", thinking.into())));
        let template = self.environment.get_template("chat").expect("added when it was made");
        let failed = |error| ChatError::Render { path: self.path.clone(), message: says(&error) };
        template.render(Variable::from_pairs(known)).map_err(failed)
    }
}

/// What an error says, and where.
fn says(error: &Error) -> String {
    let place = error.line().map_or(String::new(), |line| format!("line {line}: "));
    format!("{place}{}", error.detail().map_or_else(|| error.to_string(), str::to_owned))
}

fn wrong(path: &Path, message: impl Into<String>) -> ChatError {
    ChatError::Format { path: path.to_owned(), message: message.into() }
}

fn missing(path: &Path) -> ChatError {
    wrong(path, "expected a chat_template")
}

fn read(path: &Path) -> Result<String, ChatError> {
    fs::read_to_string(path).map_err(|source| ChatError::Read { path: path.to_owned(), source })
}

fn json(path: &Path) -> Result<Value, ChatError> {
    serde_json::from_str(&read(path)?).map_err(|error| wrong(path, error.to_string()))
}

/// A token's text, whichever way it is written.
fn token(found: &Value) -> Option<String> {
    found.as_str().or(found["content"].as_str()).map(str::to_owned)
}

/// The template of a file of settings; of several the one named `default`.
fn chosen(path: &Path, settings: &Value) -> Result<Option<String>, ChatError> {
    match &settings["chat_template"] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(several) => {
            let default = several.iter().find(|one| one["name"] == "default");
            let text = default.and_then(|one| one["template"].as_str());
            let missing = || wrong(path, "chat_template: expected one named \"default\" among several");
            text.map(|text| Some(text.to_owned())).ok_or_else(missing)
        }
        found => Err(wrong(path, format!("chat_template: expected a text, found {found}"))),
    }
}
