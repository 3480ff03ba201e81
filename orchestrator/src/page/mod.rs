//! A run as a page of HTML: the dashboard while it lasts, the report after it. One renderer for both, without anything
//! that a network would have to fetch.

mod chart;
mod pipeline;
mod sections;
#[cfg(test)]
mod tests;

pub use chart::{Chart, Line, escaped};
pub use sections::Section;

use crate::view::View;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
const LIVE: &str = include_str!("live.js");

/// What the page is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It follows a run that lasts.
    Dashboard,
    /// It stands for itself.
    Report,
}

/// The sections that a view gives, in order.
pub fn sections(view: &View) -> Vec<Section> {
    sections::of(view)
}

/// The whole page: `sections` one after another.
pub fn document(title: &str, sections: &[Section], kind: Kind) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
        escaped(title),
        escaped(title)
    );
    if kind == Kind::Dashboard {
        page.push_str("<p class=\"soft\">iota, <span id=\"link\">as of now</span></p>\n");
    }
    page.push_str("<main>\n");
    for section in sections {
        let class = if section.wide { " class=\"wide\"" } else { "" };
        let _ = writeln!(page, "<section id=\"{}\"{class}>{}</section>", section.name, section.html);
    }
    page.push_str("</main>\n");
    if kind == Kind::Dashboard {
        let _ = writeln!(page, "<script>\n{LIVE}</script>");
    }
    page.push_str("</body>\n</html>\n");
    page
}
