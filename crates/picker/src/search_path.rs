//! The domains in which this machine looks names up: what stands below them is inside, whatever the cluster is called.

use std::path::Path;

/// The search path of `resolv.conf` (`man 5 resolv.conf`); nothing where there is none.
pub(crate) fn of(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).map(|text| read(&text)).unwrap_or_default()
}

fn read(text: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::split_whitespace);
    // Of several lines the last one counts.
    let last = lines.rfind(|words| matches!(words.clone().next(), Some("search" | "domain")));
    let domains = last.into_iter().flat_map(|words| words.skip(1));
    let domains = domains.map(|domain| domain.trim_end_matches('.').to_ascii_lowercase());
    domains.filter(|domain| !domain.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        let of_a_pod = "search a.svc.cluster.corp svc.cluster.corp cluster.corp Example.com.\nnameserver 10.0.0.10\noptions ndots:5\n";
        assert_eq!(read(of_a_pod), ["a.svc.cluster.corp", "svc.cluster.corp", "cluster.corp", "example.com"]);
        assert_eq!(read("domain a\n# search b\nsearch .\n"), Vec::<String>::new());
        assert_eq!(read("nameserver 1.1.1.1\n"), Vec::<String>::new());
        assert_eq!(of(Path::new("/nowhere/resolv.conf")), Vec::<String>::new());
    }
}
