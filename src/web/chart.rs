//! Charts as plain SVG paths, computed here so that a page needs no script for them.
