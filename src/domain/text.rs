//! Text that a driver sent, made safe to keep and to print (rule G9).

use std::borrow::Cow;
use std::fmt::Write;

/// Longest health description, in bytes.
pub const DESCRIPTION_LIMIT: usize = 1024;

/// At most `limit` bytes of `text`, whole characters, control characters replaced by a space.
#[must_use]
pub fn bounded(text: &str, limit: usize) -> Box<str> {
    let mut out = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if out.len() + character.len_utf8() > limit {
            break;
        }
        out.push(character);
    }
    out.into_boxed_str()
}

/// Text on its way to a terminal: what would move the cursor, hide or reorder what stands around it is written as
/// `\u{…}`; letters, marks and joiners of every script stay.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unseen(character) {
            let _ = write!(out, "{}", character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Controls, line ends, and the format characters that no script needs to be read (U+200C and U+200D some do).
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out_and_every_script_is_kept() {
        for text in
            ["plain", "Größe", "e\u{301}", "驱动程序", "سائق", "מנהל", "\u{928}\u{94d}\u{200d}\u{937}", "👩\u{200d}🚀"]
        {
            assert_eq!(escaped(text), text);
        }
        assert_eq!(escaped("\u{1b}[31m\n\u{202e}x\u{9b}"), "\\u{1b}[31m\\u{a}\\u{202e}x\\u{9b}");
    }

    #[test]
    fn a_cut_never_splits_a_character_and_controls_become_spaces() {
        assert_eq!(&*bounded("ä\nb", 16), "ä b");
        assert_eq!(&*bounded("ää", 3), "ä");
        assert_eq!(&*bounded("\u{1b}[31mred", 16), " [31mred");
    }
}
