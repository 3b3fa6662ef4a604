//! Shapes to SVG text: integers only, one order, so that equal pictures are equal bytes.

use std::fmt::Write;

/// Colours that read on light and dark pages alike.
pub(super) const PRIMARY: &str = "#1f6feb";
pub(super) const REPLICA: &str = "#9ec5fe";
pub(super) const NEW: &str = "#2da44e";
pub(super) const GONE: &str = "#cf222e";
pub(super) const NONE: &str = "#eaeef2";
pub(super) const INK: &str = "#24292f";
pub(super) const FAINT: &str = "#57606a";

/// A picture being drawn.
pub(super) struct Svg {
    width: u32,
    height: u32,
    body: String,
}

impl Svg {
    /// Begins a picture; `title` is what a reader without eyes is told.
    pub(super) fn new(width: u32, height: u32, title: &str) -> Self {
        let mut svg = Self {
            width,
            height,
            body: String::new(),
        };
        svg.line(format_args!("<title>{}</title>", escape(title)));
        svg.rect(0, 0, width, height, "#ffffff");
        svg
    }

    pub(super) fn rect(&mut self, x: u32, y: u32, width: u32, height: u32, fill: &str) {
        self.line(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
        ));
    }

    /// Draws a frame around a cell.
    pub(super) fn frame(&mut self, x: u32, y: u32, width: u32, height: u32, stroke: &str) {
        self.line(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"none\" \
             stroke=\"{stroke}\" stroke-width=\"2\"/>"
        ));
    }

    pub(super) fn arrow(&mut self, from: (u32, u32), to: (u32, u32), stroke: &str, width: u32) {
        self.line(format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{stroke}\" \
             stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn text(&mut self, x: u32, y: u32, fill: &str, text: &str) {
        self.line(format_args!(
            "<text x=\"{x}\" y=\"{y}\" fill=\"{fill}\">{}</text>",
            escape(text)
        ));
    }

    /// Ends the picture.
    pub(super) fn finish(self) -> String {
        let Self {
            width,
            height,
            body,
        } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"12\">\n{body}</svg>\n"
        )
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{line}");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
