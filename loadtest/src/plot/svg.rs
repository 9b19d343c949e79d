//! SVG as text: elements that are closed, text that is escaped, colours for light and dark.
//!
//! 1. Colours are classes. The reader's setting chooses their values, and the picture brings its
//!    own ground, so that it is readable on whatever page it is.
//!
//! Refuses to know what is drawn.

use std::fmt::Write as _;

/// A picture that grows.
#[derive(Default)]
pub struct Svg {
    body: String,
}

#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

impl Svg {
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(coordinate);
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"
        );
    }

    pub fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> =
            points.iter().map(|(x, y)| format!("{},{}", coordinate(*x), coordinate(*y))).collect();
        let points = points.join(" ");
        let _ = writeln!(self.body, "<polyline class=\"{class}\" points=\"{points}\"/>");
    }

    /// With what a pointer that rests on it is told.
    pub fn dot(&mut self, class: &str, at: (f64, f64), told: &str) {
        let (x, y) = (coordinate(at.0), coordinate(at.1));
        let _ = writeln!(
            self.body,
            "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"3.2\"><title>{}</title></circle>",
            escaped(told)
        );
    }

    pub fn rectangle(&mut self, class: &str, at: (f64, f64), size: (f64, f64), told: &str) {
        let [x, y, width, height] = [at.0, at.1, size.0, size.1].map(coordinate);
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\">\
             <title>{}</title></rect>",
            escaped(told)
        );
    }

    pub fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let (x, y, anchor) = (coordinate(at.0), coordinate(at.1), anchor.name());
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        );
    }

    /// Read from below.
    pub fn upright(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = (coordinate(at.0), coordinate(at.1));
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" transform=\"translate({x} {y}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            escaped(text)
        );
    }

    pub fn finish(self, (width, height): (f64, f64), title: &str, style: &str) -> String {
        let (width, height) = (coordinate(width), coordinate(height));
        let title = escaped(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
             <style>{style}</style>\n\
             <rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// A tenth of a pixel is as fine as it gets.
fn coordinate(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// For text and for attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML 1.0 has no way to say the others.
            letter if letter.is_control() && letter != '\n' && letter != '\t' => {
                out.push('\u{fffd}')
            }
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_no_element() {
        assert_eq!(escaped("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
        assert_eq!(escaped("µ\u{1}"), "µ\u{fffd}");
        let mut svg = Svg::default();
        svg.text("t", (1.0, 2.25), Anchor::End, "</text><script>");
        svg.dot("d", (1.0, 2.0), "<&>");
        let text = svg.finish((10.0, 20.0), "\"><x", "");
        assert!(text.contains("text-anchor=\"end\">&lt;/text&gt;&lt;script&gt;</text>"), "{text}");
        assert!(text.contains("<title>&lt;&amp;&gt;</title></circle>"), "{text}");
        assert!(text.contains("aria-label=\"&quot;&gt;&lt;x\">"), "{text}");
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!([3.0, 2.25, -0.04, 10.96].map(coordinate), ["3", "2.2", "-0", "11"]);
    }
}
