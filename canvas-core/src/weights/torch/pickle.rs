//! The part of Python's pickle that a state dict needs, read as data.
//!
//! A pickle is a program for a stack machine, which may ask Python to call anything. This machine knows the
//! instructions that `torch.save` writes for dictionaries and tensors, and the handful of names that they call; any
//! other call is refused by its name. A name that is only mentioned is data: training frameworks keep some beside
//! the weights.

use super::value::{At, Heap, Storage, Value, View};
use std::collections::HashMap;

/// Reads a pickle: its values, and the one that it stands for.
///
/// # Errors
/// What it asked for, or that it is none.
pub(super) fn read(bytes: &[u8]) -> Result<(Heap, At), String> {
    let mut machine = Machine { rest: bytes, ..Machine::default() };
    while let Some(code) = machine.rest.first().copied() {
        machine.rest = &machine.rest[1..];
        if code == b'.' {
            let root = machine.pop()?;
            return Ok((machine.heap, root));
        }
        machine.step(code)?;
    }
    Err(end())
}

fn end() -> String {
    "the pickle in it ends too early".to_owned()
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    heap: Heap,
    stack: Vec<At>,
    /// Heights of the stack.
    marks: Vec<usize>,
    /// Values to be used again, by number.
    memo: HashMap<u32, At>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            0x80 => drop(self.take(1)?), // the protocol
            0x95 => drop(self.take(8)?), // the length of a frame
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'G' => {
                self.take(8)?;
                self.push(Value::Other);
            }
            b'K' => self.integer::<1>()?,
            b'M' => self.integer::<2>()?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => self.long()?,
            b'X' | b'T' => self.text::<4>()?,
            0x8c | b'U' => self.text::<1>()?,
            b'B' => self.bytes::<4>()?,
            b'C' => self.bytes::<1>()?,
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' | b')' => self.push(Value::List(Vec::new())),
            b't' => {
                let parts = self.marked()?;
                self.push(Value::List(parts));
            }
            0x85..=0x87 => {
                let parts = self.top(usize::from(code - 0x84))?;
                self.push(Value::List(parts));
            }
            b's' => self.set_items(2)?,
            b'u' => self.set_marked()?,
            b'a' | b'e' => self.append(code)?,
            b'q' | b'r' | 0x94 => self.remember(code)?,
            b'h' | b'j' => self.recall(code)?,
            b'c' | 0x93 => self.name(code)?,
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            0x81 => return Err(format!("it asks to make a {}", self.called()?.0)),
            b'b' => self.build()?,
            _ => return Err(format!("it holds the instruction {code:#04x}, which no state dict needs")),
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(end)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N).map(|bytes| bytes.try_into().expect("as many as asked for"))
    }

    /// An unsigned number of a few bytes.
    fn unsigned<const N: usize>(&mut self) -> Result<u32, String> {
        let mut wide = [0; 4];
        wide[..N].copy_from_slice(self.take(N)?);
        Ok(u32::from_le_bytes(wide))
    }

    fn line(&mut self) -> Result<String, String> {
        let length = self.rest.iter().position(|byte| *byte == b'\n').ok_or_else(end)?;
        let line = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(line)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.heap.add(value));
    }

    fn pop(&mut self) -> Result<At, String> {
        Ok(self.top(1)?[0])
    }

    /// The values above the last mark stay where they are for the mark that is under them.
    fn top(&mut self, count: usize) -> Result<Vec<At>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count).filter(|height| *height >= floor) {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err("the pickle in it takes what it never made".to_owned()),
        }
    }

    fn marked(&mut self) -> Result<Vec<At>, String> {
        let height = self.marks.pop().ok_or("the pickle in it ends a list it never began")?;
        Ok(self.stack.split_off(height))
    }

    fn integer<const N: usize>(&mut self) -> Result<(), String> {
        let value = self.unsigned::<N>()?;
        self.push(Value::Int(value.into()));
        Ok(())
    }

    /// A number of any length; those beyond 64 bits are none that a tensor needs.
    fn long(&mut self) -> Result<(), String> {
        let length = self.unsigned::<1>()? as usize;
        let bytes = self.take(length)?;
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [sign; 8];
        self.push(if length > 8 {
            Value::Other
        } else {
            wide[..length].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        });
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.unsigned::<N>()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.unsigned::<N>()? as usize;
        self.take(length)?;
        self.push(Value::Other);
        Ok(())
    }

    fn set_marked(&mut self) -> Result<(), String> {
        let height = self.marks.pop().ok_or("the pickle in it ends a list it never began")?;
        self.set_items(self.stack.len() - height)
    }

    fn set_items(&mut self, count: usize) -> Result<(), String> {
        let items = self.top(count)?;
        let dict = *self.stack.last().ok_or_else(end)?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("a dictionary in it has a key without a value".to_owned());
        };
        match self.heap.get_mut(dict) {
            Value::Dict(entries) => entries.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            other => return Err(format!("it adds entries to {}", other.kind())),
        }
        Ok(())
    }

    fn append(&mut self, code: u8) -> Result<(), String> {
        let items = if code == b'a' { self.top(1)? } else { self.marked()? };
        let list = *self.stack.last().ok_or_else(end)?;
        match self.heap.get_mut(list) {
            Value::List(parts) => parts.extend(items),
            other => return Err(format!("it appends to {}", other.kind())),
        }
        Ok(())
    }

    fn remember(&mut self, code: u8) -> Result<(), String> {
        let number = match code {
            b'q' => self.unsigned::<1>()?,
            b'r' => self.unsigned::<4>()?,
            _ => self.memo.len() as u32,
        };
        let value = *self.stack.last().ok_or_else(end)?;
        self.memo.insert(number, value);
        Ok(())
    }

    fn recall(&mut self, code: u8) -> Result<(), String> {
        let number = if code == b'h' { self.unsigned::<1>()? } else { self.unsigned::<4>()? };
        let value = *self.memo.get(&number).ok_or("the pickle in it recalls what it never made")?;
        self.stack.push(value);
        Ok(())
    }

    fn name(&mut self, code: u8) -> Result<(), String> {
        let [module, name] = if code == b'c' {
            [self.line()?, self.line()?]
        } else {
            let [module, name] = self.top(2)?.try_into().expect("two");
            [self.heap.text(module)?, self.heap.text(name)?]
        };
        self.push(Value::Name(format!("{module}.{name}")));
        Ok(())
    }

    /// What `torch.save` leaves in the place of a block of values: `("storage", class, key, device, count)`.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let parts = self.heap.list(id)?;
        let [_, class, key, _, count] = parts[..] else {
            return Err("it refers to something other than a block of values".to_owned());
        };
        let Value::Name(class) = self.heap.get(class) else { return Err("a block of no class".to_owned()) };
        let kind = class.strip_prefix("torch.").unwrap_or(class).to_owned();
        let storage = Storage { kind, key: self.heap.text(key)?, count: self.heap.size(count)? };
        self.push(Value::Storage(storage));
        Ok(())
    }

    /// The name and the arguments of a call, taken from the stack.
    fn called(&mut self) -> Result<(String, At), String> {
        let [name, arguments] = self.top(2)?.try_into().expect("two");
        match self.heap.get(name) {
            Value::Name(name) => Ok((name.clone(), arguments)),
            other => Err(format!("it calls {}", other.kind())),
        }
    }

    fn call(&mut self) -> Result<(), String> {
        let (name, arguments) = self.called()?;
        let arguments = self.heap.list(arguments)?;
        let made = match (name.as_str(), &arguments[..]) {
            ("collections.OrderedDict", []) => Value::Dict(Vec::new()),
            ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", [storage, view @ ..]) => {
                Value::Tensor(self.view(*storage, view)?)
            }
            ("torch._utils._rebuild_parameter", [tensor, ..]) => self.heap.get(*tensor).clone(),
            _ => return Err(format!("it asks to call {name}")),
        };
        self.push(made);
        Ok(())
    }

    fn view(&self, storage: At, view: &[At]) -> Result<View, String> {
        let (Value::Storage(storage), [offset, shape, strides, ..]) = (self.heap.get(storage), view) else {
            return Err("a tensor in it has no block of values".to_owned());
        };
        let sizes = |at| self.heap.list(at)?.into_iter().map(|at| self.heap.size(at)).collect();
        let [shape, strides]: [Result<Vec<usize>, String>; 2] = [sizes(*shape), sizes(*strides)];
        let (shape, strides) = (shape?, strides?);
        if shape.len() != strides.len() {
            return Err(format!("a tensor of shape {shape:?} has the steps {strides:?}"));
        }
        Ok(View { storage: storage.clone(), offset: self.heap.size(*offset)?, shape, strides })
    }

    /// What a class does with a state is code; a dictionary's attributes are left out.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.stack.last().map(|at| self.heap.get(*at)) {
            Some(Value::Dict(_)) => Ok(()),
            other => Err(format!("it sets the state of {}", other.map_or("nothing", Value::kind))),
        }
    }
}
