//! Well-known phrases, one per line; songs and films by a line that people quote. Attackers try them without spaces and
//! punctuation, cut off, and with digits appended.

/// At least eight letters each, not counting separators. Shorter ones belong in `common_words`.
pub(super) const PHRASES: &str = "\
99 luftballons
a bird in the hand
absence makes the heart grow fonder
actions speak louder than words
a day without laughter
alea iacta est
alle guten dinge sind drei
alle jahre wieder
alle meine entchen
aller anfang ist schwer
alles aus liebe
alles gute zum geburtstag
alles hat ein ende nur die wurst hat zwei
alles ist möglich
alles neu macht der mai
alles nur geklaut
alles roger
alles was zählt
alles wird gut
alle vögel sind schon da
alle wege führen nach rom
all is well that ends well
all i want for christmas is you
all that glitters is not gold
all you need is love
alte liebe rostet nicht
always look on the bright side of life
am anfang war das wort
a mi me gusta
an apple a day keeps the doctor away
an der nordseeküste
a new hope
another brick in the wall
an tagen wie diesen
atemlos durch die nacht
auf der mauer auf der lauer
auf die plätze fertig los
auf gute zusammenarbeit
auf und davon
auf wiedersehen
auge um auge zahn um zahn
aus den augen aus dem sinn
baby one more time
backe backe kuchen
back to the future
beam me up scotty
beauty and the beast
because i can
been there done that
bergfest
better late than never
bis morgen
bis später
bis zum mond und zurück
bitte nicht stören
bitte passwort eingeben
bohemian rhapsody
born in the usa
born to be wild
born to run
bridge over troubled water
bruder jakob
can you feel the love tonight
carpe diem
carpe noctem
cogito ergo sum
come as you are
dancing queen
das ist geheim
das ist mein passwort
das kleine krokodil
das leben der anderen
das leben ist kein ponyhof
das leben ist kein wunschkonzert
das leben ist schön
das runde muss ins eckige
das sind nicht die druiden die ihr sucht
da steh ich nun ich armer tor
das wandern ist des müllers lust
das wird schon
dem deutschen volke
denk an mich
der apfel fällt nicht weit vom stamm
der ball ist rund
der frühe vogel fängt den wurm
der frühling kommt
der herr der ringe
der herr ist mein hirte
der könig der löwen
der krug geht so lange zum brunnen
der mond ist aufgegangen
der schuh des manitu
der tag des herrn
der ton macht die musik
der weg ist das ziel
der zweck heiligt die mittel
die gedanken sind frei
die hoffnung stirbt zuletzt
die macht sei mit dir
die sendung mit der maus
die sonne scheint
die wahrheit liegt auf dem platz
die welt ist schön
die zauberflöte
die zeit heilt alle wunden
do not disturb
don't panic
don't stop believing
don't stop me now
don't worry be happy
do or do not there is no try
doppelt hält besser
drei chinesen mit dem kontrabass
drei nüsse für aschenbrödel
du bist das beste was mir je passiert ist
du bist der beste
du bist mein ein und alles
du bist mein schatz
du kannst nicht vorbei
du kommst hier nicht rein
dumm gelaufen
durch den monsun
dust in the wind
easy come easy go
edel sei der mensch hilfreich und gut
ehrlich währt am längsten
ein bett im kornfeld
ein bisschen frieden
ein bisschen spaß muss sein
eines tages
eine wie keine
ein hoch auf uns
einigkeit und recht und freiheit
einmal ist keinmal
einmal um die welt
ein prosit der gemütlichkeit
ein stern der deinen namen trägt
elementary my dear watson
ende gut alles gut
er gehört zu mir
es gibt kein bier auf hawaii
es ist nicht alles gold was glänzt
es ist noch kein meister vom himmel gefallen
es ist noch suppe da
es ist vollbracht
es klappert die mühle am rauschenden bach
es war einmal
es wird alles gut
et phone home
every breath you take
everything is awesome
everything will be fine
eye of the tiger
fear is the mind killer
fifty shades of grey
fight club
follow the white rabbit
forever and ever
forrest gump
frankly my dear i don't give a damn
freude schöner götterfunken
freundschaft
friede freude eierkuchen
frisch gewagt ist halb gewonnen
fröhliche weihnachten
frohe ostern
frohes neues jahr
frohe weihnachten und ein gutes neues jahr
fuchs du hast die gans gestohlen
fünf freunde
für immer jung
für immer und ewig
game of thrones
game over man
geld allein macht nicht glücklich
geld regiert die welt
geld stinkt nicht
gelegenheit macht diebe
geschafft
geteiltes leid ist halbes leid
gib mir fünf
gleich und gleich gesellt sich gern
glück auf
glück im unglück
go ahead make my day
god bless america
god is good
god save the king
god save the queen
good morning sunshine
good morning vietnam
gott sei dank
griechischer wein
grüezi mitenand
grüß gott
guardians of the galaxy
guten appetit
guten morgen sonnenschein
guten rutsch
guten tag
gute zeiten schlechte zeiten
hab dich lieb
hände hoch
hänschen klein ging allein
hänsel und gretel
hakuna matata
hallelujah
hallo leute
hallo welt
hallo wie geht es dir
happy birthday to you
happy new year
harry potter and the philosopher's stone
hasta la vista baby
have a nice day
heart of gold
heile heile segen
hello darkness my old friend
hello from the other side
hello is it me you're looking for
hello my name is
here comes the sun
herz an herz
herzlichen glückwunsch
herzlich willkommen
highway to hell
himmel und hölle
hinterher ist man immer schlauer
hit me baby one more time
hochmut kommt vor dem fall
hoch sollen sie leben
hol mich hier raus
home is where the heart is
home sweet home
honesty is the best policy
hoppe hoppe reiter
hopp schwiiz
hotel california
houston we have a problem
how are you today
hulapalu
hunde die bellen beißen nicht
hunger ist der beste koch
i am batman
i am groot
i am iron man
i am legend
i am number one
i am the best
i am the boss
i am the king
i am the walrus
i am your father
i can't get no satisfaction
ich bin dann mal weg
ich bin dein vater
ich bin der beste
ich bin der chef
ich bin die nummer eins
ich bin ein berliner
ich bin ein star holt mich hier raus
ich bin müde
ich bin wieder da
ich bin wie ich bin
ich denke also bin ich
ich geh mit meiner laterne
ich hab dich lieb
ich habe einen traum
ich habe fertig
ich habe keine ahnung
ich habe mein passwort vergessen
ich hab polizei
ich hasse montage
ich hasse passwörter
ich kenne nichts
ich komme wieder
ich liebe deutschland
ich liebe dich für immer
ich liebe dich über alles
ich liebe euch
ich liebe meine familie
ich liebe meine frau
ich liebe meine mutter
ich liebe meinen hund
ich liebe meinen mann
ich liebe mein leben
ich mag kaffee
ich vermisse dich
ich war noch niemals in new york
ich weiß es nicht
ich weiß nicht
ich weiß was du letzten sommer getan hast
ich will nur dich
ich will spaß
i do not know
i don't care
if it ain't broke don't fix it
i forgot my password
i hate mondays
i hate passwords
i have a dream
ihr kinderlein kommet
i just called to say i love you
i kissed a girl
i like big butts
i'll be back
i love my cat
i love my dog
i love my family
i love my job
i love my life
i love my mom
i love my wife
i love you baby
i love you forever
i love you so much
im frühtau zu berge
im himmel ist die hölle los
i miss you
im märzen der bauer
immer wieder sonntags
im namen des vaters
i'm singing in the rain
i'm so tired
in der kürze liegt die würze
in der ruhe liegt die kraft
in der weihnachtsbäckerei
in god we trust
in the air tonight
in vino veritas
i see dead people
i shot the sheriff
ist das leben nicht schön
i still haven't found what i'm looking for
it's a kind of magic
it's my life
it's raining men
it's the end of the world as we know it
i want it that way
i want to break free
i want to hold your hand
i will always love you
i will be back
i will survive
jeder ist seines glückes schmied
jesus is lord
jesus loves me
jesus saves
jetzt erst recht
jetzt geht's los
jetzt oder nie
jingle bells
junge komm bald wieder
just do it
just married
keep calm and carry on
kein anschluss unter dieser nummer
kein bier vor vier
keine ahnung
keine macht den drogen
keine panik
kein schwein ruft mich an
killing me softly
kinder kinder
kleider machen leute
kleine haie
kling glöckchen klingelingeling
knock knock knocking on heaven's door
knowledge is power
kölle alaaf
komm gut heim
kommt zeit kommt rat
küss die hand
lang lang ist's her
lass es sein
lasset uns beten
lass mich rein
lass uns gehen
laterne laterne
laudato si
lebe deinen traum
leben und leben lassen
let me entertain you
let me in please
let the games begin
liebe deinen nächsten
liebe geht durch den magen
liebe ist alles
liebe macht blind
lieber gott
lieber spät als nie
liegen ist frieden
life goes on
life is a box of chocolates
life is beautiful
life is good
life is short
life of brian
like a prayer
like a rolling stone
like a virgin
lirum larum löffelstiel
live and let die
live and let live
live free or die
live laugh love
live long and prosper
livin on a prayer
long time no see
lord of the rings
love is all around
love is all you need
love is in the air
love me do
love me tender
lügen haben kurze beine
luke i am your father
mach es gut
mach's gut und danke für den fisch
macht hoch die tür
made in germany
major tom
make love not war
mama said knock you out
marmor stein und eisen bricht
may the force be with you
mein freund der baum
mein herz schlägt
mein kleiner grüner kaktus
mein name ist
mein name ist bond
mein name ist hase ich weiß von nichts
mein neues passwort
mein passwort ist
mein schatz
mensch ärgere dich nicht
merry christmas
mission impossible
mit 66 jahren
mit freundlichen grüßen
möge die macht mit dir sein
moin moin
money makes the world go round
money money money
monty python and the holy grail
moonlight sonata
morgen früh
morgen ist auch noch ein tag
morgen kommt der weihnachtsmann
morgenstund hat gold im mund
müde bin ich geh zur ruh
my country
my favorite things
my heart will go on
my little pony
my name is
my precious
my way or the highway
nach mir die sintflut
nachts sind alle katzen grau
never ever
never give up
never gonna give you up
never mind
never say never
never stop dreaming
nichts ist unmöglich
nicht vergessen
niemals aufgeben
nobody knows
nobody's perfect
no future
no pain no gain
no risk no fun
nothing compares to you
nothing else matters
no time to die
no woman no cry
null acht fünfzehn
nur der hsv
nur die liebe zählt
nur noch kurz die welt retten
o du fröhliche
oh happy day
ohne fleiß kein preis
ohne moos nix los
oh tannenbaum wie grün sind deine blätter
ois guade
old macdonald had a farm
once upon a time
one for all and all for one
one ring to rule them all
one small step for man
only god can judge me
only the good die young
o sole mio
o tannenbaum
over the rainbow
pack die badehose ein
paint it black
papa don't preach
papa ist der beste
paradise city
pater noster
people are strange
perfect day
piece of cake
pippi langstrumpf
pirates of the caribbean
play it again sam
practice makes perfect
probieren geht über studieren
punkt punkt komma strich
purple rain
quod erat demonstrandum
ready player one
ready steady go
reden ist silber schweigen ist gold
rock and roll
rock around the clock
rolling in the deep
rom wurde auch nicht an einem tag erbaut
rosen sind rot veilchen sind blau
roses are red violets are blue
rotkäppchen und der böse wolf
rudi rüssel
ruhe in frieden
ruhe sanft
run forrest run
sag niemals nie
sah ein knab ein röslein stehn
say my name
scherben bringen glück
schlaf kindlein schlaf
schneeflöckchen weißröckchen
schneewittchen und die sieben zwerge
schöne bescherung
schönen feierabend
schönen tag noch
schönes wochenende
schuster bleib bei deinen leisten
schwamm drüber
schwarz rot gold
sei kein frosch
sein oder nicht sein das ist hier die frage
servus die wadln
sesam öffne dich
set fire to the rain
seven nation army
shake it off
shape of you
show must go on
sieben auf einen streich
sieben zwerge
silence is golden
silent night holy night
singing in the rain
smells like teen spirit
smoke on the water
somebody that i used to know
someone like you
somewhere over the rainbow
sommer sonne strand und meer
sonne mond und sterne
sound of silence
spiel mir das lied vom tod
stairway to heaven
star spangled banner
star wars the empire strikes back
stay hungry stay foolish
stayin alive
stille nacht heilige nacht
stille wasser sind tief
summ summ summ bienchen summ herum
sweet child of mine
sweet dreams are made of this
sweet home alabama
sympathy for the devil
tag und nacht
take me home country roads
take me to church
take on me
tausendmal berührt
tausend und eine nacht
thank god it's friday
thank you very much
that's what she said
the answer is forty two
the big bang theory
the dark knight
the early bird catches the worm
the final countdown
the first cut is the deepest
the godfather
the good the bad and the ugly
the grass is always greener
the hunger games
the lion king
the lion sleeps tonight
the matrix has you
the police
the quick brown fox jumps over the lazy dog
there is no place like home
there is no spoon
the rolling stones
the show must go on
the simpsons
the sky is the limit
the sound of music
the spirit is willing
the truth is out there
the walking dead
the winner takes it all
this is america
this is my password
this is not a password
this is sparta
this is the end
this is the way
this too shall pass
time after time
time flies
time is money
to be or not to be that is the question
tochter zion
to hell and back
to infinity and beyond
too good to be true
total eclipse of the heart
trautes heim glück allein
trust no one
twinkle twinkle little star
über den wolken
über sieben brücken musst du gehn
übung macht den meister
unchained melody
under pressure
under the bridge
under the sea
und täglich grüßt das murmeltier
unkraut vergeht nicht
unser täglich brot
unter dem meer
valar morghulis
vater unser im himmel
vaya con dios
veni vidi vici
verdammt ich lieb dich
vertrauen ist gut kontrolle ist besser
viele köche verderben den brei
viel erfolg
viel glück
viel spaß
vier gewinnt
viva la vida
völlig losgelöst von der erde
vom himmel hoch
von nichts kommt nichts
vorfreude ist die schönste freude
wahnsinn
wake me up before you go go
wake me up when september ends
walking on sunshine
walk the line
walk this way
was du heute kannst besorgen
was für ein tag
was lange währt wird endlich gut
was nicht passt wird passend gemacht
was wollen wir trinken
we all live in a yellow submarine
we are family
we are one
we are the champions
we are the world
we don't need no education
we found love
welcome back
welcome home
welcome to hell
welcome to hotel california
welcome to my world
welcome to the club
welcome to the jungle
welcome to the machine
welcome to the matrix
welcome to the real world
wer anderen eine grube gräbt
wer a sagt muss auch b sagen
wer bin ich
wer nicht wagt der nicht gewinnt
wer rastet der rostet
wer suchet der findet
wer wird millionär
wer zuerst kommt mahlt zuerst
wer zuletzt lacht lacht am besten
wetten dass
we will rock you
what a wonderful world
what does the fox say
what goes around comes around
what is love baby don't hurt me
what is my password
what's up doc
what would jesus do
when the going gets tough
where is the love
where there's a will there's a way
who let the dogs out
who wants to live forever
why so serious
wie bitte
wie du mir so ich dir
wie geht es dir
wie geht's dir
wie heißt du
wie man in den wald hineinruft
willkommen daheim
willkommen im club
willkommen im dschungel
willkommen im team
willkommen zu hause
willkommen zurück
winner winner chicken dinner
winnetou
winter is coming
wir kinder vom bahnhof zoo
wir lagen vor madagaskar
wir lieben dich
wir schaffen das
wir sind das volk
wir sind die besten
wir sind helden
wir sind papst
wir sind weltmeister
wir werden sehen
wish you were here
with a little help from my friends
with great power comes great responsibility
wodka energy
wodka red bull
wo ein wille ist ist auch ein weg
wo gehobelt wird fallen späne
wonderful tonight
wonderwall
work hard play hard
wunder gibt es immer wieder
yellow submarine
yesterday all my troubles seemed so far away
yes we can
you are my sunshine
you are the best
you are welcome
you can do it
you can't always get what you want
you know nothing jon snow
you'll never walk alone
you never walk alone
you only live once
you're beautiful
you're the one that i want
your song
you shall not pass
zeit heilt alle wunden
zeit ist geld
zicke zacke hoi hoi hoi
zu hause ist es am schönsten
zum geburtstag viel glück
zum goldenen hirsch
zurück in die zukunft
zwei dumme ein gedanke
zwei himmelhunde
zwei kleine italiener
";
