//! How the timelines of two databases relate.

use super::Timeline;

/// How a copy relates to the database that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// No standby was promoted between them.
    Same,
    /// The copy was promoted later.
    Continues,
    /// The present database was promoted later: this is its first timeline that the copy does not have.
    Precedes(Timeline),
    /// Both were promoted, independently of each other. This is the present database's first timeline that the copy
    /// does not have.
    Diverged(Timeline),
}

/// How a copy with the timelines `copy` relates to the present database with the timelines `present`.
pub fn relation(copy: &[Timeline], present: &[Timeline]) -> Relation {
    let common = copy.iter().zip(present);
    let common = common
        .take_while(|(of_copy, of_present)| of_copy.identity == of_present.identity)
        .count();
    match (copy.get(common), present.get(common)) {
        (None, None) => Relation::Same,
        (Some(_), None) => Relation::Continues,
        (None, Some(missing)) => Relation::Precedes(missing.clone()),
        (Some(_), Some(other)) => Relation::Diverged(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;

    #[test]
    fn a_copy_is_of_the_same_an_earlier_a_later_or_another_timeline() {
        let timelines = [1, 2, 3].map(|number| Timeline {
            identity: [number; 16],
            began_at: UnixMs(i64::from(number) * 10),
            continues: UnixMs(i64::from(number)),
        });
        let [first, second, other] = &timelines;
        let both = [first.clone(), second.clone()];
        let apart = [first.clone(), other.clone()];
        assert_eq!(relation(&[], &[]), Relation::Same);
        assert_eq!(relation(&both, &both), Relation::Same);
        assert_eq!(relation(&both, &both[..1]), Relation::Continues);
        assert_eq!(relation(&both, &[]), Relation::Continues);
        assert_eq!(relation(&[], &both), Relation::Precedes(first.clone()));
        assert_eq!(
            relation(&both[..1], &both),
            Relation::Precedes(second.clone())
        );
        assert_eq!(relation(&apart, &both), Relation::Diverged(second.clone()));
        assert_eq!(
            relation(std::slice::from_ref(other), &both),
            Relation::Diverged(first.clone())
        );
    }
}
