//! `apply(a, diff(a, b)) == b`, and whatever is published arrives.

use proptest::prelude::*;
use publish::Delta;

use crate::pairs::Pair;
use crate::tables::table;

proptest! {
    #[test]
    fn applying_the_difference_makes_the_other_table(a in table(), b in table()) {
        prop_assert_eq!(Delta::between(&a, &b).apply(&a), Ok(b));
    }

    #[test]
    fn equal_tables_do_not_differ(a in table()) {
        prop_assert!(Delta::between(&a, &a.clone()).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_subscriber_ends_with_the_publishers_table_wherever_the_stream_is_cut(
        tables in proptest::collection::vec((table(), any::<bool>()), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut pair = Pair::start(None);
            for (table, cut) in &tables {
                pair.publish(table.clone());
                if *cut {
                    pair.cut();
                }
            }
            let last = tables.last().expect("one at least").0.clone();
            pair.until(|subscription| subscription.received.as_ref().is_some_and(|received| *received.table == last)).await;
        });
    }
}
