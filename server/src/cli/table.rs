//! Columns of text, each as wide as its widest cell: `kafka-consumer-groups` prints this way.

use std::io::{self, Write};

/// Prints `rows` left-aligned, each column at least as wide as `widths_min` says, one space between columns.
pub fn print(out: &mut dyn Write, widths_min: &[usize], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths = widths_min.to_vec();
    for row in rows {
        assert_eq!(row.len(), widths.len(), "every row has every column");
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let last = row.len() - 1;
        for (index, cell) in row.iter().enumerate() {
            let width = widths[index];
            if index < last {
                write!(out, "{cell:<width$} ")?;
            } else {
                writeln!(out, "{cell}")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_grow_with_their_cells() {
        let rows = [["A", "B", "C"], ["longer", "x", "y"]];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(ToString::to_string).collect())
            .collect();
        let mut out = Vec::new();
        super::print(&mut out, &[2, 3, 0], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "A      B   C\nlonger x   y\n"
        );
    }
}
