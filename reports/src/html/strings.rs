//! Texts of the page's data, each written once. A run repeats itself: 27,000 cells consist of some ten thousand words.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

/// Every text once, by number; 0 is the empty one.
#[derive(Debug)]
pub(super) struct Strings {
    numbers: HashMap<Rc<str>, usize>,
    texts: Vec<Rc<str>>,
}

impl Strings {
    pub(super) fn new() -> Self {
        let empty: Rc<str> = Rc::from("");
        Self { numbers: HashMap::from([(Rc::clone(&empty), 0)]), texts: vec![empty] }
    }

    /// The number of a text.
    pub(super) fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let text: Rc<str> = Rc::from(text);
        self.texts.push(Rc::clone(&text));
        self.numbers.insert(text, self.texts.len() - 1);
        self.texts.len() - 1
    }

    /// As JSON.
    pub(super) fn value(&mut self, text: &str) -> Value {
        self.number(text).into()
    }

    /// All of them, in the order of their numbers.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(AsRef::as_ref)
    }
}

/// JSON that may stand inside of a `script` element: nothing in it ends the element or begins a comment.
pub(super) fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}
