//! One self-contained HTML page that puts the texts, tables and pictures of a run together.
//!
//! The page has no script and refers to nothing outside itself: pictures are `data:` URIs, so it can be
//! mailed or kept beside a paper and still opens years later.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use canvas_core::weights::write_atomically;

/// A page: its headings and what stands below them, in order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The heading of the page and of its browser tab.
    pub title: String,
    /// One line below the heading (left out when empty).
    pub subtitle: String,
    /// What follows, in order.
    pub sections: Vec<Section>,
}

/// One piece of a [`Report`].
#[derive(Clone, Debug)]
pub enum Section {
    /// A heading between sections.
    Heading(String),
    /// Plain text; an empty line starts a new paragraph.
    Text(String),
    /// A table; a row that is shorter than the longest one is filled up with empty cells.
    Table {
        /// The line above the table (left out when empty).
        caption: String,
        /// The column headings.
        head: Vec<String>,
        /// The rows, top to bottom.
        rows: Vec<Vec<String>>,
    },
    /// A picture that travels inside the page.
    Picture {
        /// The line below the picture; also its description for those who cannot see it.
        caption: String,
        /// The bytes of a PNG file, see [`crate::sheet::png_bytes`].
        png: Vec<u8>,
    },
    /// Pictures of one kind, side by side where there is room, in order.
    Strip {
        /// The line below them.
        caption: String,
        /// The bytes of PNG files.
        pngs: Vec<Vec<u8>>,
    },
    /// Text shown as it is, in a fixed-width font: a command, a configuration.
    Code(String),
}

/// Writes `report` to `path` as one HTML file, whole or not at all.
///
/// # Errors
///
/// The file cannot be written; the error names it.
pub fn write(path: impl AsRef<Path>, report: &Report) -> Result<()> {
    Ok(write_atomically(path.as_ref(), html(report).as_bytes())?)
}

/// The page as a string, for those who want it elsewhere than in a file.
pub fn html(report: &Report) -> String {
    let mut page = String::new();
    let title = escape(&report.title);
    page.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    // Writing into a String cannot fail, here and below.
    let _ = writeln!(page, "<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>");
    let _ = writeln!(page, "<h1>{title}</h1>");
    if !report.subtitle.is_empty() {
        let _ = writeln!(page, "<p class=\"subtitle\">{}</p>", escape(&report.subtitle));
    }
    for section in &report.sections {
        push_section(&mut page, section);
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

const STYLE: &str = "\
:root { color-scheme: light dark; --line: #d0d7de; --soft: #59636e; --code: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --soft: #9198a1; --code: #1c2128; } }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { margin: 0; font-size: 1.8rem; line-height: 1.25; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.3rem; border-bottom: 1px solid var(--line); }
.subtitle, caption, figcaption { color: var(--soft); }
.subtitle { margin-top: .3rem; }
p { max-width: 46rem; }
.wide { overflow-x: auto; margin: 1.2rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { border: 1px solid var(--line); padding: .3rem .7rem; text-align: left; }
th { background: var(--code); }
.number { text-align: right; }
figure { margin: 1.5rem 0; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: .8rem; }
img { max-width: 100%; height: auto; border-radius: 6px; background: #fff; }
pre { background: var(--code); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto; font-size: .9rem; }
";

fn push_section(page: &mut String, section: &Section) {
    let _ = match section {
        Section::Heading(text) => writeln!(page, "<h2>{}</h2>", escape(text)),
        Section::Text(text) => {
            // `lines` also understands the line ends of Windows.
            let unix = text.lines().collect::<Vec<_>>().join("\n");
            for paragraph in unix.split("\n\n").map(str::trim).filter(|p| !p.is_empty()) {
                let _ = writeln!(page, "<p>{}</p>", escape(paragraph));
            }
            Ok(())
        }
        Section::Table { caption, head, rows } => {
            push_table(page, caption, head, rows);
            Ok(())
        }
        Section::Picture { caption, png } => {
            let (caption, data) = (escape(caption), STANDARD.encode(png));
            let _ = writeln!(page, "<figure>\n<img alt=\"{caption}\" src=\"data:image/png;base64,{data}\">");
            writeln!(page, "<figcaption>{caption}</figcaption>\n</figure>")
        }
        Section::Strip { caption, pngs } => {
            let caption = escape(caption);
            page.push_str("<figure>\n<div class=\"strip\">\n");
            for (number, png) in pngs.iter().enumerate() {
                let (data, number, count) = (STANDARD.encode(png), number + 1, pngs.len());
                let alt = format!("{caption}: {number} of {count}");
                let _ = writeln!(page, "<img alt=\"{alt}\" src=\"data:image/png;base64,{data}\">");
            }
            writeln!(page, "</div>\n<figcaption>{caption}</figcaption>\n</figure>")
        }
        Section::Code(text) => writeln!(page, "<pre><code>{}</code></pre>", escape(text)),
    };
}

fn push_table(page: &mut String, caption: &str, head: &[String], rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).chain([head.len()]).max().unwrap_or(0);
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    // Numbers compare by eye only when their columns are flush right.
    let class: Vec<&str> = (0..columns)
        .map(|c| if rows.iter().all(|row| is_number(&cell(row, c))) { " class=\"number\"" } else { "" })
        .collect();
    page.push_str("<div class=\"wide\">\n<table>\n");
    if !caption.is_empty() {
        let _ = writeln!(page, "<caption>{}</caption>", escape(caption));
    }
    let heads = head.iter().any(|text| !text.is_empty()).then_some(("th", head));
    for (tag, row) in heads.into_iter().chain(rows.iter().map(|row| ("td", row.as_slice()))) {
        page.push_str("<tr>");
        for (column, class) in class.iter().enumerate() {
            let _ = write!(page, "<{tag}{class}>{}</{tag}>", escape(&cell(row, column)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n</div>\n");
}

/// Whether a cell reads as a number: `0.42`, `1,914`, `61%`, `-` for "not measured".
fn is_number(cell: &str) -> bool {
    let bare = cell.trim().trim_end_matches('%').trim_end().replace([',', '_'], "");
    matches!(bare.as_str(), "" | "-" | "\u{2013}" | "\u{2014}") || bare.parse::<f64>().is_ok()
}

/// Makes text harmless inside an element and inside a quoted attribute.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn report() -> Report {
        Report {
            title: "A run <script>alert(1)</script>".into(),
            subtitle: "\"quotes\" & 'more'".into(),
            sections: vec![
                Section::Heading("Numbers".into()),
                Section::Text("one <script>\r\n\r\ntwo".into()),
                Section::Table {
                    caption: "<script>".into(),
                    head: vec!["what".into(), "top-1".into()],
                    rows: vec![vec!["<script>".into(), "61%".into()], vec!["dit".into()]],
                },
                Section::Picture { caption: "\"><script>".into(), png: vec![0x89, b'P', b'N', b'G'] },
                Section::Strip { caption: "\"><script>".into(), pngs: vec![vec![1], vec![2]] },
                Section::Code("<script>".into()),
            ],
        }
    }

    #[test]
    fn text_is_escaped_everywhere() {
        let page = html(&report());
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
        assert!(page.contains("alt=\"&quot;&gt;&lt;script&gt;\""));
        assert!(page.contains("<p>two</p>"));
    }

    #[test]
    fn pictures_travel_inside() {
        let page = html(&report());
        assert!(page.contains("src=\"data:image/png;base64,iVBORw==\""));
        assert!(page.contains("src=\"data:image/png;base64,AQ==\"") && page.contains("2 of 2"));
        assert!(!page.contains("http"));
    }

    #[test]
    fn short_rows_are_filled_and_numbers_flush_right() {
        let page = html(&report());
        assert!(page.contains("<tr><td>&lt;script&gt;</td><td class=\"number\">61%</td></tr>"));
        assert!(page.contains("<tr><td>dit</td><td class=\"number\"></td></tr>"));
    }

    #[test]
    fn written_whole_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write(&path, &Report::default()).unwrap();
        write(&path, &report()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), html(&report()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
