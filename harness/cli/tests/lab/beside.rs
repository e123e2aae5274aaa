//! Tests that mostly wait, for cells that fail and for clusters that refuse: two of them at once, though tests take turns.
//!
//! Whatever measures how long a connection is out is not for here.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::scenarios::selects;

/// How many at once: one for each processor of the smallest machine.
const AT_ONCE: usize = 2;

type Verdict = Result<(), Failed>;
pub(crate) type Test = fn() -> Verdict;

/// Those that are asked for begin with the first of them, in this order.
pub(crate) fn trials(arguments: &Arguments, tests: Vec<(&str, Test)>) -> Vec<Trial> {
    let mut queue = Queue::default();
    let mut receivers = Vec::new();
    for (name, test) in tests {
        let (sender, receiver) = channel();
        if selects(arguments, name) {
            queue.tests.get_mut().expect("nobody has it yet").push_back((test, sender));
        }
        receivers.push((name.to_owned(), receiver));
    }
    let queue = Arc::new(queue);
    let trial = |(name, receiver): (String, Receiver<Verdict>)| {
        let queue = queue.clone();
        Trial::test(name, move || {
            queue.begin();
            receiver.recv().unwrap_or_else(|_| Err("nobody ran this test".into()))
        })
    };
    receivers.into_iter().map(trial).collect()
}

/// Tests that nobody has begun.
#[derive(Default)]
struct Queue {
    tests: Mutex<VecDeque<(Test, Sender<Verdict>)>>,
    begun: OnceLock<()>,
}

impl Queue {
    fn begin(self: &Arc<Self>) {
        self.begun.get_or_init(|| {
            for _ in 0..AT_ONCE {
                let queue = self.clone();
                std::thread::spawn(move || queue.work());
            }
        });
    }

    fn work(&self) {
        loop {
            let next = self.tests.lock().expect("nobody panics with it").pop_front();
            let Some((test, sender)) = next else { return };
            let result = catch_unwind(test).unwrap_or_else(|panic| Err(words(&*panic).into()));
            // Whoever asked for it may have ended.
            let _ = sender.send(result);
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("test panicked: {}", text.unwrap_or_default())
}
