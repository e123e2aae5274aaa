//! XML has no way to write most control characters, and the library writes what it is given: text is cleaned first.

use std::fmt::Write;

/// Whether XML 1.0 allows the character.
const fn is_legal(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
}

/// Text for an attribute: one line, illegal characters spelt out.
pub(super) fn attribute(text: &str) -> String {
    spell_out(&crate::text::one_line(text))
}

/// Text for the inside of a CDATA section: illegal characters spelt out, `]]>` split over two sections.
pub(super) fn content(text: &str) -> String {
    spell_out(text).replace("]]>", "]]]]><![CDATA[>")
}

/// `\u{1b}` for an escape: evidence stays readable, and nothing is lost.
fn spell_out(text: &str) -> String {
    if text.chars().all(is_legal) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_legal(c) {
            out.push(c);
        } else {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illegal_characters_are_spelt_out() {
        assert_eq!(content("a\u{0}b\u{1b}[31m\tc\u{fffe}\nü"), "a\\u{0}b\\u{1b}[31m\tc\\u{fffe}\nü");
    }

    #[test]
    fn the_end_of_a_section_is_split() {
        assert_eq!(content("x]]>y"), "x]]]]><![CDATA[>y");
        assert_eq!(content("]]]>"), "]]]]]><![CDATA[>");
    }
}
