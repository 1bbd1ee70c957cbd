//! Words and phrases that people make passwords of, and how much of a password is left without them. zxcvbn knows
//! English lists of leaked passwords; these are the ones it does not know, and those to which a year is added.

use std::iter;

use super::common_phrases::PHRASES;

/// In lower case, without spaces, `ä` as `ae`, `ß` as `ss`. At least four letters, since shorter ones stand inside
/// other words too.
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

/// So many letters of a phrase in their order are no chance.
const QUOTED_MIN: usize = 8;

/// How many characters of `password` a guesser has to find who knows the words above, `names`, years, rows and
/// repetitions, and what everybody quotes: each of these counts as one character, and what separates words as none.
pub(super) fn effort(password: &str, names: &[&str]) -> usize {
    effort_beside(&phrases(), password, names)
}

fn effort_beside(phrases: &[String], password: &str, names: &[&str]) -> usize {
    let typed: Vec<char> = folded(password).chars().collect();
    let names: Vec<String> = names.iter().flat_map(|name| parts(name)).collect();
    let words = || {
        WORDS
            .split_ascii_whitespace()
            .chain(names.iter().map(String::as_str))
    };
    let mut left = typed.as_slice();
    let mut effort = 0;
    while !left.is_empty() {
        let word = words().map(|word| spelled(left, word)).max().unwrap_or(0);
        let quoted = phrases.iter().map(|phrase| quoted(left, phrase)).max();
        let known = word.max(quoted.unwrap_or(0));
        let known = known.max(year(left)).max(row(left)).max(1);
        left = left.get(known..).unwrap_or_default();
        effort += 1;
    }
    effort
}

/// A name as a whole, and what stands between its separators.
fn parts(name: &str) -> Vec<String> {
    let pieces = name.split(|c: char| !c.is_alphanumeric());
    let all = iter::once(name).chain(pieces).map(folded);
    all.filter(|part| part.chars().count() >= 4).collect()
}

/// In lower case, without what separates words, umlauts as two letters.
fn folded(text: &str) -> String {
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

/// Each phrase from each of its words on, in the form that is looked for.
fn phrases() -> Vec<String> {
    let from_each_word = |phrase: &'static str| {
        let starts = phrase.match_indices(' ').map(|(at, _)| at).chain([0]);
        starts.filter_map(|at| phrase.get(at..))
    };
    let all = PHRASES.lines().flat_map(from_each_word).map(folded);
    all.filter(|rest| rest.chars().count() >= QUOTED_MIN)
        .collect()
}

/// How many characters at the beginning of `text` are the beginning of `phrase`, also with digits in place of letters;
/// 0 for what may be chance.
fn quoted(text: &[char], phrase: &str) -> usize {
    let both = text.iter().zip(phrase.chars());
    let same = both.take_while(|(typed, letter)| stands_for(**typed, *letter));
    Some(same.count())
        .filter(|length| *length >= QUOTED_MIN)
        .unwrap_or(0)
}

/// How many characters at the beginning of `text` spell `word`, also with digits in place of letters.
fn spelled(text: &[char], word: &str) -> usize {
    let mut typed = text.iter();
    let same = word
        .chars()
        .all(|letter| typed.next().is_some_and(|c| stands_for(*c, letter)));
    if same { word.chars().count() } else { 0 }
}

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

/// Four digits that begin like a year of somebody alive.
fn year(text: &[char]) -> usize {
    let digits = text.iter().take(4).filter(|c| c.is_ascii_digit()).count();
    let century = text.starts_with(&['1', '9']) || text.starts_with(&['2', '0']);
    if digits == 4 && century { 4 } else { 0 }
}

/// How many characters at the beginning are a repetition of one, or count up or down for at least three.
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
    fn what_is_known_counts_as_one_character() {
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
            assert_eq!(effort(password, &[]), left, "{password}");
        }
        for (password, left) in [
            ("adalovelace99", 2),
            ("Lovelace.Ada", 4),
            ("ada.lovelace", 1),
        ] {
            assert_eq!(effort(password, &["ada.lovelace"]), left, "{password}");
        }
    }

    #[test]
    fn every_word_is_in_the_form_that_is_looked_for() {
        for word in WORDS.split_ascii_whitespace() {
            assert!(folded(word) == word && word.len() >= 4, "{word}");
        }
    }

    #[test]
    fn every_phrase_is_seen_through_without_spaces_with_digits_and_as_people_spell_it() {
        let phrases = phrases();
        for phrase in PHRASES.lines() {
            let bare: String = phrase.split(' ').collect();
            assert!(folded(&bare).chars().count() >= QUOTED_MIN, "{phrase}");
            for password in [phrase.to_owned(), format!("{bare}1"), bare.to_uppercase()] {
                assert!(effort_beside(&phrases, &password, &[]) <= 2, "{password}");
            }
        }
    }
}
