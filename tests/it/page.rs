//! `docs/policy-cases.md`: tables of what tests ask, which must be those of the tests.
//! `RINGSIDE_WRITE_DOCS=1` has the tests write them anew.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// One test writes at a time.
static WRITING: Mutex<()> = Mutex::new(());

/// The page's section of this name is this text.
pub fn holds(section: &str, text: &str) {
    let begin = format!("<!-- {section} -->\n");
    let end = format!("<!-- {section}: end -->\n");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy-cases.md");
    let _writing = WRITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let page = fs::read_to_string(&file).expect("docs/policy-cases.md");
    let (before, rest) = page.split_once(&begin).expect("where the section begins");
    let (told, after) = rest.split_once(&end).expect("where it ends");
    if std::env::var_os("RINGSIDE_WRITE_DOCS").is_some() {
        fs::write(&file, format!("{before}{begin}{text}{end}{after}")).expect("a page");
    } else {
        assert_eq!(told, text, "docs/policy-cases.md, {section}: RINGSIDE_WRITE_DOCS=1 writes it");
    }
}
