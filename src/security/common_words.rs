//! Common words and phrases in passwords, and how hard a password is to guess without them. Complements zxcvbn, which
//! knows English lists of leaked passwords: these are words that it does not know, and words that people extend by a
//! year.

use std::iter;

use super::common_phrases::PHRASES;

/// In lower case, with `ä` as `ae` and `ß` as `ss`. At least four letters each, since shorter words occur inside
/// others.
const WORDS: &str = "
licenseserver lizenzserver license licence lizenz server panel admin administrator owner support root
user benutzer account konto login anmelden anmeldung zugang password passwort passwd kennwort passphrase
secret geheim geheimnis access welcome willkommen letmein changeme change aendern bitteaendern default
standard master test demo temp start system computer internet windows linux office firma company shop
software programm program rocket sqlite
licensing licensekey lizenzverwaltung lizenzverwalter lizenzschluessel lizenzportal lizenzmanager verwaltung
schluessel aktivierung activation subscription abonnement dashboard management manager portal kunden kunde
customer customers device geraet session sitzung serial seriennummer webshop onlineshop vertrieb verkauf sales
zuhause daheim redbull wodka vodka
spring summer autumn winter fruehling fruehjahr sommer herbst january february march april june july
august september october november december januar jaenner februar maerz juni juli oktober dezember monday
tuesday wednesday thursday friday saturday sunday montag dienstag mittwoch donnerstag freitag samstag
sonnabend sonntag today heute morgen gestern weekend wochenende urlaub ferien holiday vacation christmas
weihnachten easter ostern silvester newyear neujahr halloween fasching karneval geburtstag birthday frohe
froehliche happy merry
hallo hello guten servus moin tschuess danke bitte thanks thankyou please goodmorning goodnight world
welt gutentag gutenmorgen gutenabend gutenacht iloveyou ilove loveyou love liebe ichliebedich ichliebe
liebedich dich mich mein meine dein deine unser mother father mutter vater mama papa familie family
schatz schatzi maus mausi hase hasi engel angel baby sweetheart darling ichbin ichbins dasist wasist
keineahnung passtschon allesgut allesklar daspasswort meinpasswort mypassword thepassword
thisismypassword dasistmeinpasswort nopassword keinpasswort openthedoor opensesame sesamoeffnedich
whatever egal vergessen forgot trustno nothing nichts correcthorsebatterystaple qwertz qwerty asdf yxcv
zxcv abcd abcdef
fussball football soccer baseball basketball hockey bayern muenchen dortmund borussia schalke werder
bremen hamburg berlin koeln frankfurt stuttgart leipzig wien zuerich deutschland germany oesterreich
schweiz austria europa america arsenal chelsea liverpool manchester london newyork sunshine sonne
sonnenschein mond stern blume blumen flower regenbogen rainbow dragon drache monkey affe tiger loewe lion
hund katze kaetzchen kitten pferd horse einhorn unicorn schmetterling butterfly princess prinzessin
prinz superman batman spiderman starwars pokemon minecraft fortnite harrypotter schokolade chocolate
kaffee coffee bier beer cookie banane banana pizza mercedes porsche ferrari volkswagen audi yamaha honda
michael thomas andreas daniel dennis stefan christian alexander sebastian markus jessica jennifer
michelle julia sandra nicole sabine claudia charlie jordan killer hammer freedom freiheit money geld
business winner champion legend
";

/// How many consecutive characters of a phrase count as a quotation rather than a coincidence.
const QUOTED_MIN: usize = 8;

/// The effective length of `password` for an attacker who tries the words above, `names`, years, sequences, repetitions
/// and well-known phrases: each of these counts as one character, and separators do not count.
pub(super) fn effective_length(password: &str, names: &[&str]) -> usize {
    effective_length_with(&phrases(), password, names)
}

fn effective_length_with(phrases: &[String], password: &str, names: &[&str]) -> usize {
    let typed: Vec<char> = fold(password).chars().collect();
    let names: Vec<String> = names.iter().flat_map(|name| parts(name)).collect();
    let words = || {
        WORDS
            .split_ascii_whitespace()
            .chain(names.iter().map(String::as_str))
    };
    let mut left = typed.as_slice();
    let mut effective_length = 0;
    while !left.is_empty() {
        let word = words().map(|word| spelled(left, word)).max().unwrap_or(0);
        let quoted = phrases.iter().map(|phrase| quoted(left, phrase)).max();
        let known = word.max(quoted.unwrap_or(0));
        let known = known.max(year(left)).max(row(left)).max(1);
        left = left.get(known..).unwrap_or_default();
        effective_length += 1;
    }
    effective_length
}

/// The whole name, and its parts between separators, if they have at least four letters.
fn parts(name: &str) -> Vec<String> {
    let pieces = name.split(|c: char| !c.is_alphanumeric());
    let all = iter::once(name).chain(pieces).map(fold);
    all.filter(|part| part.chars().count() >= 4).collect()
}

/// `text` in lower case, without separators, with umlauts as two letters.
fn fold(text: &str) -> String {
    let mut all = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'ä' => all.push_str("ae"),
            'ö' => all.push_str("oe"),
            'ü' => all.push_str("ue"),
            'ß' => all.push_str("ss"),
            '-' | '_' | '.' | ',' | '\'' | '’' | '+' | '/' => {}
            c if c.is_whitespace() => {}
            c => all.push(c),
        }
    }
    all
}

/// Each phrase and its endings from each word on, folded.
fn phrases() -> Vec<String> {
    let from_each_word = |phrase: &'static str| {
        let starts = phrase.match_indices(' ').map(|(at, _)| at).chain([0]);
        starts.filter_map(|at| phrase.get(at..))
    };
    let all = PHRASES.lines().flat_map(from_each_word).map(fold);
    all.filter(|rest| rest.chars().count() >= QUOTED_MIN)
        .collect()
}

/// How many characters `text` and `phrase` have in common at the start, also with digits in place of letters. 0 if that
/// may be a coincidence.
fn quoted(text: &[char], phrase: &str) -> usize {
    let both = text.iter().zip(phrase.chars());
    let same = both.take_while(|(typed, letter)| stands_for(**typed, *letter));
    Some(same.count())
        .filter(|length| *length >= QUOTED_MIN)
        .unwrap_or(0)
}

/// The length of `word` if `text` starts with it, also with digits in place of letters; otherwise 0.
fn spelled(text: &[char], word: &str) -> usize {
    let mut typed = text.iter();
    let same = word
        .chars()
        .all(|letter| typed.next().is_some_and(|c| stands_for(*c, letter)));
    if same { word.chars().count() } else { 0 }
}

/// Whether `typed` is `letter` or a digit or mark that people type in its place.
const fn stands_for(typed: char, letter: char) -> bool {
    typed == letter
        || matches!(
            (typed, letter),
            ('0', 'o')
                | ('1' | '!' | '|', 'i' | 'l')
                | ('3' | '€', 'e')
                | ('4' | '@', 'a')
                | ('5' | '$', 's')
                | ('7', 't')
                | ('8', 'b')
                | ('9' | '6', 'g')
        )
}

/// 4 if `text` starts with a year from 1900 to 2099; otherwise 0.
fn year(text: &[char]) -> usize {
    let digits = text.iter().take(4).filter(|c| c.is_ascii_digit()).count();
    let century = text.starts_with(&['1', '9']) || text.starts_with(&['2', '0']);
    if digits == 4 && century { 4 } else { 0 }
}

/// The length of a run at the start of `text`: one character repeated, or at least three that count up or down.
fn row(text: &[char]) -> usize {
    let step = |pair: &[char]| match pair {
        [one, next] => i64::from(u32::from(*next)) - i64::from(u32::from(*one)),
        _ => 0,
    };
    let mut steps = text.windows(2).map(step);
    let Some(first @ -1..=1) = steps.next() else {
        return 0;
    };
    let length = 2 + steps.take_while(|next| *next == first).count();
    if first == 0 || length > 2 { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_word_counts_as_one_character() {
        for (password, left) in [
            ("Sommer2026!!", 3),
            ("S0mm3r-2026", 2),
            ("license-server1", 2),
            ("ich liebe dich", 1),
            ("ICH LIEBE DICH", 1),
            ("passwort123456", 2),
            ("Grüezi", 6),
            ("x7kq9z", 6),
            ("aaaabbbb", 2),
            ("", 0),
            ("tobeornottobe", 1),
            ("ornottobe", 1),
            ("MayTheForce4711", 4),
            ("sein oder nicht sein", 1),
            ("sein oder", 1),
            ("sein od", 6),
        ] {
            assert_eq!(effective_length(password, &[]), left, "{password}");
        }
        for (password, left) in [
            ("adalovelace99", 2),
            ("Lovelace.Ada", 4),
            ("ada.lovelace", 1),
        ] {
            assert_eq!(
                effective_length(password, &["ada.lovelace"]),
                left,
                "{password}"
            );
        }
    }

    #[test]
    fn every_word_is_folded_and_long_enough() {
        for word in WORDS.split_ascii_whitespace() {
            assert!(fold(word) == word && word.len() >= 4, "{word}");
        }
    }

    #[test]
    fn every_phrase_is_recognized_with_and_without_spaces_with_a_digit_and_in_upper_case() {
        let phrases = phrases();
        for phrase in PHRASES.lines() {
            let bare: String = phrase.split(' ').collect();
            assert!(fold(&bare).chars().count() >= QUOTED_MIN, "{phrase}");
            for password in [phrase.to_owned(), format!("{bare}1"), bare.to_uppercase()] {
                assert!(
                    effective_length_with(&phrases, &password, &[]) <= 2,
                    "{password}"
                );
            }
        }
    }
}
