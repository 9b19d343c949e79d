//! Pictures of records: what `loadtest compare`, `sweep` and `hold` wrote as JSON, as SVG.
//!
//! 1. A picture is made of one record and holds nothing that is not in it: medians over the rounds,
//!    with the lowest and the highest.
//! 2. A record that has nothing to show in a picture makes none.
//!
//! ```text
//! record    what of the JSON is read
//! figures   which pictures there are             -> chart
//! chart     panels, axes, series, legend         -> scale, svg
//! scale     where a value is on an axis
//! svg       elements, escaping
//! ```

mod chart;
mod figures;
mod record;
mod scale;
mod svg;

pub use figures::Picture;

/// The pictures of one record's JSON; fails on what is none.
pub fn pictures(json: &str) -> Result<Vec<Picture>, String> {
    Ok(figures::of(&record::read(json)?))
}
