//! Columns and `name = value` blocks as Nomad's command line prints them, with text from elsewhere made harmless.

use comfy_table::{Table, presets};

use crate::domain::text::escaped;

/// What Nomad prints where nothing is known.
const NONE: &str = "<none>";

fn cell(text: &str) -> String {
    // Nomad's printer takes space around a value away.
    match text.trim() {
        "" => NONE.to_owned(),
        text => escaped(text).into_owned(),
    }
}

/// Rows in columns that are as wide as their widest cell on a screen, two spaces apart. The first row is the header.
pub(super) fn columns<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).add_rows(rows.into_iter().map(|row| row.map(|text| cell(&text))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // Nothing stands at a line's end.
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Names and values, one a line.
pub(super) fn pairs<const N: usize>(rows: [(&str, String); N]) -> String {
    let widest = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.map(|(name, value)| format!("{name:<widest$} = {}", cell(&value))).join("\n")
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn columns_begin_at_the_same_place_whatever_the_script() {
        let names = ["ID", "plain", "驱动程序", "e\u{301}bs", "نظام", "אחסון", "ก็", "🚀"];
        let shown = columns(names.map(|name| [name.to_owned(), "x".to_owned()]));
        let before: Vec<usize> = shown.lines().map(|line| line.trim_end_matches('x').width()).collect();
        assert_eq!(before, [10; 8], "{shown}");
    }

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out_and_nothing_is_none() {
        let shown = columns([["a\u{1b}[31m\nb".to_owned(), " ".to_owned(), "c".to_owned()]]);
        assert_eq!(shown, "a\\u{1b}[31m\\u{a}b  <none>  c");
        assert_eq!(pairs([("ID", String::new()), ("Longer", "x".to_owned())]), "ID     = <none>\nLonger = x");
    }
}
