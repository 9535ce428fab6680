//! Text that a driver sent, made safe to keep and to print (rule G9).

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character_and_controls_become_spaces() {
        assert_eq!(&*bounded("ä\nb", 16), "ä b");
        assert_eq!(&*bounded("ää", 3), "ä");
        assert_eq!(&*bounded("\u{1b}[31mred", 16), " [31mred");
    }
}
