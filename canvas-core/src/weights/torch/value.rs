//! The values of a pickle.
//!
//! They live in one list and refer to each other by place, so that sharing and cycles cost nothing, and no value is
//! nested so deep that dropping it could exhaust the stack.

/// Place of a value in a [`Heap`].
pub(super) type At = usize;

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A number, a flag, bytes, nothing: what no tensor is made of.
    Other,
    Int(i64),
    Text(String),
    /// A list or a tuple.
    List(Vec<At>),
    Dict(Vec<(At, At)>),
    /// Module and name of a class or a function.
    Name(String),
    Storage(Storage),
    Tensor(View),
}

/// One of the file's blocks of values.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// The class, such as `FloatStorage`.
    pub kind: String,
    pub key: String,
    /// Values.
    pub count: usize,
}

/// A tensor: values of a storage with steps.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl Value {
    pub fn kind(&self) -> &str {
        match self {
            Self::Other => "a plain value",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Name(name) => name,
            Self::Storage(_) => "a block of values",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// All values of a pickle.
#[derive(Default)]
pub(super) struct Heap(Vec<Value>);

impl Heap {
    pub fn add(&mut self, value: Value) -> At {
        self.0.push(value);
        self.0.len() - 1
    }

    pub fn get(&self, at: At) -> &Value {
        &self.0[at]
    }

    pub fn get_mut(&mut self, at: At) -> &mut Value {
        &mut self.0[at]
    }

    pub fn text(&self, at: At) -> Result<String, String> {
        match self.get(at) {
            Value::Text(text) => Ok(text.clone()),
            other => Err(format!("expected a text, found {}", other.kind())),
        }
    }

    pub fn list(&self, at: At) -> Result<Vec<At>, String> {
        match self.get(at) {
            Value::List(parts) => Ok(parts.clone()),
            other => Err(format!("expected a list, found {}", other.kind())),
        }
    }

    pub fn size(&self, at: At) -> Result<usize, String> {
        match self.get(at) {
            Value::Int(value) => usize::try_from(*value).map_err(|_| format!("a size of {value}")),
            other => Err(format!("expected a size, found {}", other.kind())),
        }
    }

    /// The entries of a dictionary that have a text for a key.
    pub fn entries(&self, dict: At) -> Result<Vec<(&str, At)>, String> {
        let Value::Dict(pairs) = self.get(dict) else {
            return Err(format!("expected a dictionary of tensors, found {}", self.get(dict).kind()));
        };
        let named = |(key, value): &(At, At)| match self.get(*key) {
            Value::Text(key) => Some((key.as_str(), *value)),
            _ => None,
        };
        Ok(pairs.iter().filter_map(named).collect())
    }
}
