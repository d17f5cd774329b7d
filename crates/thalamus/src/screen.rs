//! What is shown to a person: tables that line up, colours on a terminal only.

use std::io::{IsTerminal as _, Write as _};

use daemon::Table;

/// Where to show.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub colours: bool,
}

impl Screen {
    /// Standard output.
    pub fn of_stdout() -> Self {
        Self { colours: std::io::stdout().is_terminal() }
    }

    /// A heading.
    pub fn title(self, title: &str) {
        if self.colours {
            line(&format!("\n\x1b[1;36m{title}\x1b[0m"));
        } else {
            line(&format!("\n{title}"));
        }
    }

    /// A table, its first row the names of the columns.
    pub fn table(self, table: &Table) {
        for (number, row) in table.to_string().lines().enumerate() {
            if self.colours && number == 0 {
                line(&format!("  \x1b[2m{row}\x1b[0m"));
            } else {
                line(&format!("  {row}"));
            }
        }
    }
}

/// Whoever reads may stop reading (`| head`): that ends the showing and nothing else.
pub fn line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
