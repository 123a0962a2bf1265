//! Text from outside, for people: an image's author must not command the terminal of who reads it, nor forge a line.

/// The first `max` characters of `text`, in one line.
pub fn printable(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for letter in text.chars().take(max) {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_line_without_commands() {
        assert_eq!(printable("1\u{1b}[2J\nslot a holds evil", 100), "1\\u{1b}[2J\\nslot a holds evil");
        assert_eq!(printable(&"ä".repeat(300), 4), "ääää…");
    }
}
