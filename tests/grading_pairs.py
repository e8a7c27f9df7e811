"""Pairs of gold and prediction, by topic: those that mean the same and those that do not."""

# fmt: off
SAME = {
    "integers": [
        ("42", "42"), ("42", "42."), ("42", " 42 "), ("42", "$42$"), ("42", "$$42$$"), ("42", r"\(42\)"), ("42", r"\[42\]"),
        ("42", "+42"), ("-7", "-7"), ("-7", "−7"), ("-7", r"{-7}"), ("7", "007"), ("025", "25"), ("73", "073"),
        ("27.0", "27"), ("27", "27.0"), ("27", "27.00"), ("0", "-0"), ("42", "**42**"), ("42", "`42`"), ("42", r"\boxed{42}"),
        ("42", r"$\boxed{42}$"), ("42", r"\fbox{42}"), ("8", r"2^3"), ("8", "2**3"), ("120", "5!"), ("10", r"\binom{5}{2}"),
        ("3", r"\sqrt{9}"), ("2", r"\sqrt[3]{8}"), ("6", r"2 \cdot 3"), ("6", r"2\times3"), ("5", r"\frac{10}{2}"),
        ("2", r"|{-2}|"), ("2", r"\left|-2\right|"), ("7", r"\lfloor 7.5 \rfloor"), ("8", r"\lceil 7.5 \rceil"),
        ("1", r"\sin^2 x + \cos^2 x"), ("0", r"\sin \pi"), ("5", "five"), ("5", "Five"), ("12", "twelve"), ("3", r"\text{three}"),
    ],
    "separators": [
        ("1000", "1,000"), ("1,000", "1000"), ("1000000", "1,000,000"), (r"10,\!080", "10080"), ("10080", r"10{,}080"),
        ("10080", "10,080"), ("58,500", "58500"), (r"11,\! 111,\! 111,\! 100", "11111111100"), ("12345", r"12\,345"),
        ("12345", "12 345"), ("1234567", "1 234 567"), (r"\$32,\!348", "32348"), ("2,125", "2125.00"), ("-1,450", "-1450"),
    ],
    "decimals": [
        ("0.5", ".5"), (".35625", "0.35625"), ("1.25", "1.250"), ("3.21", "3.21"), ("0.15", r"\frac{3}{20}"), ("4.5", r"\frac92"),
        ("0.333333333333", r"\frac{1}{3}"), (r"\frac{1}{12}", "0.083333333333333"), (r"\sqrt{2}", "1.4142135623730951"),
        (r"0.\overline{3}", r"\frac13"), (r"0.1\overline{6}", "1/6"), (r"0.\overline{142857}", r"\frac17"), ("1", r"0.\overline{9}"),
    ],
    "e-notation": [
        ("4.5e33", "4.5e33"), ("4.5e33", "4.5E33"), ("4.5e33", "4.5e+33"), ("4.5e33", r"4.5 \times 10^{33}"),
        ("4.5e33", r"4.5\cdot 10^{33}"), ("4.5e33", "4.5*10^33"), ("4.5e33", "45e32"), ("1e-5", r"10^{-5}"), ("1e-5", "0.00001"),
        ("3e8", "300000000"), ("3e8", r"3 \times 10^8"), ("2.7778e-6", r"2.7778\times10^{-6}"), (".0000672", r"6.72 \times 10^{-5}"),
        ("4.5e33", r"4.5 \times 10^{33} \text{ ergs}"), ("1e11", r"$10^{11}$"), ("1.0e3", "1000"),
    ],
    "fractions": [
        (r"\frac{1}{2}", r"\frac12"), (r"\frac{1}{2}", r"\dfrac{1}{2}"), (r"\frac{1}{2}", r"\tfrac12"), (r"\frac{1}{2}", "1/2"),
        (r"\frac{1}{2}", "0.5"), (r"\frac{1}{2}", r"\frac{2}{4}"), (r"\frac{1}{2}", r"\frac {1} {2}"), (r"\frac 59", r"\frac{5}{9}"),
        (r"\frac9{19}", "9/19"), (r"\frac43", r"\frac{4}{3}"), (r"\frac{1}{72}", r"\frac1{72}"), (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        (r"-\frac{1}{2}", r"\frac{1}{-2}"), (r"-\frac{1}{2}", "-1/2"), (r"\frac{3}{4}", "¾"), (r"\frac{a}{b}", "a/b"),
        (r"\frac{x+1}{2}", r"\frac12 x+\frac12"), (r"\frac{x}{7}+\frac{2}{7}", r"\frac{x+2}{7}"), (r"\frac{270}7", r"\frac{270}{7}"),
        (r"\frac{3}{4}", r"\cfrac{3}{4}"), ("-3./2", r"-\frac32"), (r"\frac{14}{3}", r"14/3"), (r"\frac{1}{x}", "x^{-1}"),
        (r"\frac{\frac{1}{2}}{3}", r"\frac16"), ("3/4", r"3 \div 4"), (r"\frac{22}{7}", "(22)/(7)"), (r"\frac{17}{50}", "0.34"),
    ],
    "mixed numbers": [
        (r"1\frac{4}{5}", r"\frac95"), (r"1\frac{4}{5}", "1 4/5"), ("1.8", r"1\frac45"), (r"137 \frac{1}{2}", "137.5"),
        (r"-2\frac{1}{3}", r"-\frac73"), (r"\frac{9}{5}", r"1 \frac{4}{5}"), (r"3\frac{1}{3}", "10/3"), ("2.5", "2½"),
    ],
    "roots": [
        (r"\sqrt{2}", "sqrt(2)"), (r"\sqrt{2}", r"\sqrt2"), (r"\sqrt{2}", "√2"), (r"\sqrt{2}", "2^{1/2}"), (r"\sqrt{2}", "2^(1/2)"),
        (r"\sqrt{13}", r"\sqrt13"), (r"3\sqrt{13}", r"\sqrt{117}"), (r"11\sqrt2", r"11 \sqrt{2}"), (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        (r"70 \sqrt{2}", r"70\cdot\sqrt{2}"), (r"2\sqrt{113}", r"\sqrt{452}"), (r"11 \sqrt{5} + 11", r"11(1+\sqrt5)"),
        (r"5 \sqrt[3]{4}", r"\sqrt[3]{500}"), (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt2"), (r"\frac{8}{\sqrt[3]{7}}", r"8 \cdot 7^{-1/3}"),
        (r"\frac{\sqrt{21}}{5}", r"\sqrt{\frac{21}{25}}"), (r"\frac{-1+\sqrt{5}}{2}", r"\frac{\sqrt5-1}{2}"), (r"2-\sqrt{3}", r"-\sqrt{3}+2"),
        (r"\sqrt{x^2+1}", r"(x^2+1)^{1/2}"), (r"\sqrt{2}", "sqrt 2"), (r"2\sqrt{3}", "2*sqrt(3)"), (r"\sqrt{50}", r"5\sqrt{2}"),
    ],
    "pi, e, i": [
        (r"\pi", "pi"), (r"\pi", "π"), (r"2\pi", r"2 \pi"), (r"12\pi", "12*pi"), (r"\frac{\pi}{2}", "pi/2"), (r"\frac{3\pi}{4}", r"\frac34\pi"),
        (r"18+2\pi", r"2\pi + 18"), ("6 - 5i", "-5i+6"), ("1+274i", "1 + 274 i"), ("i", r"\sqrt{-1}"), (r"\frac{1+i}{2}", "0.5+0.5i"),
        (r"e^{i\pi/2}", "i"), ("e^2", r"\exp(2)"), (r"\ln 2", r"\log_e 2"), (r"\ln 4", r"2\ln 2"), (r"\log_2 8", "3"), (r"\frac{\ln 8}{\ln 2}", "3"),
        (r"\frac{\log 2}{\log 2-\log 3}", r"\frac{\ln 2}{\ln(2/3)}"), (r"1024-256 \pi", r"256(4-\pi)"), ("-2 + 7i", "7i - 2"),
        (r"\frac{20000}{\pi}", r"20000/\pi"), (r"\cos(\pi/3)", r"\frac12"), (r"\sin 30^\circ", "0.5"), (r"\tan 45^{\circ}", "1"),
    ],
    "expressions": [
        ("x+1", "1+x"), ("2x+3", "3+2x"), ("xy", "yx"), ("xy", r"x \cdot y"), ("xy", "x*y"), ("2x", "2*x"), ("x^2", "x*x"), ("x^2", "x²"),
        ("x^10", "x^{10}"), ("(x+1)^2", "x^2+2x+1"), ("(a+5)(b+2)", "ab+2a+5b+10"), ("x^2-1", "(x-1)(x+1)"), ("p - q", "-(q-p)"), ("2k+2", "2(k+1)"),
        ("-13x+3", "3-13x"), (r"\frac{11+9a}{20}", r"\frac{9a}{20}+\frac{11}{20}"), ("5r^5", "5 r^{5}"), ("6r^2-4r-24", "2(3r^2-2r-12)"),
        (r"\cot x", r"\frac{\cos x}{\sin x}"), (r"\sec^2(y)", r"\tan^2(y)+1"), (r"\sin 2x", r"2 \sin x \cos x"), (r"\sin(2x)", "2sinx cosx"),
        (r"2^{n-1}", r"\frac{2^n}{2}"), (r"n!", r"n \cdot (n-1)!"), (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"), (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"),
        (r"\frac{1}{s}-\frac{1}{s} e^{-s T}", r"\frac{1-e^{-sT}}{s}"), (r"x^3+3x-6", "-6+3x+x^3"), (r"\frac{1}{4-\omega^{2}}", r"\frac{1}{(2-\omega)(2+\omega)}"),
        (r"e^{x+1}", r"e \cdot e^x"), (r"\ln(x^2 y)", r"\ln(x^2)+\ln y"), ("a_1+a_2", "a_2+a_{1}"), (r"x_{1}", "x_1"), (r"\alpha+\beta", "β+α"),
        (r"\frac{x^2-1}{x-1}", "x+1"), ("3(x-2)", "3x - 6"), (r"-\tau \ln \Delta", r"\tau\ln(1/\Delta)"), ("2RC+R+C", "R+C+2CR"), ("(x-1)/(x+1)", r"\frac{x-1}{x+1}"),
        (r"\lfloor n/2 \rfloor", r"\left\lfloor \frac{n}{2} \right\rfloor"), (r"m n-\lfloor m / 2\rfloor", r"mn - \lfloor \frac{m}{2} \rfloor"),
        (r"\frac{e^{t}} {3}+c e^{-2 t}", r"\frac{1}{3}e^t + ce^{-2t}"), (r"\frac{1}{2}(\exp{a*t} - \exp{-a*t})", r"\frac{e^{at}-e^{-at}}{2}"),
        (r"x_{0} \cos (\omega t)", r"x_0 \cos(\omega t)"), ("np.arcsin(10/13)", r"\arcsin\frac{10}{13}"), (r"\sin^{-1}(x)", r"\arcsin x"),
    ],
    "equations": [
        ("x=5", "5"), ("5", "x=5"), ("5", "x = 5"), ("x=5", "x = 5"), ("x=5", "5=x"), ("y = 2x + 3", "y=3+2x"), ("y = 2x+3", "2x+3"), ("2x+3", "y = 2x+3"),
        ("y = 2x+3", "2x - y + 3 = 0"), ("5x - 7y + 11z + 4 = 0", "-5x+7y-11z-4=0"), ("x^2+y^2=4", "y^2 + x^2 = 4"), ("y=-2x", "2x+y=0"), ("x+y=3", "2x+2y=6"),
        ("f(x)=2x", "2x"), ("f(x)=x+1", "f(n)=n+1"), ("f(x)=x+1", "x+1"), ("x = 2", r"x = \frac{4}{2} = 2"), ("5", "2+3=5"), ("12", r"\text{Area} = 12"),
        ("M=2^{N-2}+1", "2^{N-2}+1"), (r"m_{\max }=n^{2}-n-1", "n^2-n-1"), (r"\frac{1}{2}", r"x = \frac{1}{2}"), ("12", r"\text{Total: } 12"), ("x=5", r"$x$ = 5"),
        ("90", r"\angle ABC = 90^\circ"), (r"k=n+1", "k = 1 + n"), (r"\frac{1}{3}", r"\frac{1}{3} \approx 0.333"), ("10", "n = 10"), ("4", "a + b = 1 + 3 = 4"),
    ],
    "inequalities and intervals": [
        (r"(2,\infty)", "x>2"), ("x>2", r"(2, \infty)"), (r"x \in [-2,7]", "[-2,7]"), (r"[-2,7]", r"x \in [-2,7]"), ("[-2,7]", r"-2 \le x \le 7"),
        (r"-2 \leq x \leq 7", "-2<=x<=7"), ("x<3", "3>x"), (r"x \geq 1", "x >= 1"), (r"x \geqslant 1", r"x\ge1"), (r"(-\infty,0]", r"x\leq 0"),
        (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"), (r"(-\infty, 2) \cup (3, \infty)", "x<2 or x>3"), (r"(0,9) \cup (9,36)", "(0,9) U (9,36)"),
        (r"(0,9) \cup (9,36)", "(0,9)∪(9,36)"), (r"\left(\frac{3}{5},\frac{8}{3}\right]", "(3/5, 8/3]"), (r"(-\infty,\infty)", r"\mathbb{R}"), (r"\mathbb{R}", "all real numbers"),
        (r"(-\sqrt{3}, \sqrt{3})", r"\left(-\sqrt3,\sqrt3\right)"), (r"[0,1)", r"0\le x<1"), (r"\{x \mid x > 2\}", r"(2,\infty)"), (r"(5,\infty)", r"(5,+\infty)"),
        (r"(-\infty,3)\cup(3,\infty)", r"x \neq 3"), (r"\mathbb{R}\setminus\{3\}", r"(-\infty,3)\cup(3,\infty)"), (r"k \geqslant 2", r"k\geq 2"), (r"[1,3]", r"[1,2]\cup[2,3]"),
        (r"\left[ \frac{\pi^2}{8}, \frac{5 \pi^2}{4} \right]", r"[\pi^2/8, 5\pi^2/4]"), ("x+y<3", "3>x+y"), (r"(-7,\infty)", r"x>-7"), ("(0,1)", r"0<x<1"),
        (r"x\in(1,2)", "(1,2)"), (r"x < -1 \text{ or } x > 1", r"(-\infty,-1)\cup(1,\infty)"), (r"x > 1 \text{ and } x < 3", "(1,3)"), (r"(-\infty,-5)", "x<-5"),
    ],
    "tuples": [
        ("(1,2)", "(1, 2)"), ("(1,2)", r"\left(1,2\right)"), ("(1,2)", "1,2"), ("(1,2)", "(x,y)=(1,2)"), ("(1,2)", "x=1, y=2"), ("x=1, y=2", "(1,2)"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"), ("(1,4.5)", r"(1,\frac{9}{2})"), ("(6,31,-1)", "(6, 31, -1)"), ("(1,-16,-4,43)", "(1,-16,-4,43)"),
        (r"(45^{\circ}, 60^{\circ})", "(45, 60)"), (r"\left( \frac{3}{2}, -13 \right)", "(1.5,-13)"), (r"(a,b)", "(a, b)"), (r"(4, \log _{10} 2)", r"(4,\log_{10}{2})"),
        ("(1,2,3)", r"\langle 1, 2, 3 \rangle"), ("(1,2),(3,4)", "(3,4),(1,2)"), ("(1,2) and (3,4)", r"(1,2), (3,4)"), ("(2,0)", r"\left( 2,\, 0 \right)"),
    ],
    "sets and lists": [
        (r"\{1,2\}", r"\{2,1\}"), (r"\{1,2\}", "{1,2}"), (r"\{1,2\}", "1,2"), ("1,2", r"\{1, 2\}"), ("1,-2", "-2, 1"), ("3, 5, 7", "7,5,3"), ("1,2", "1 and 2"), ("1,2", "1 or 2"),
        ("1,2", r"1 \text{ and } 2"), ("1,2", "x=1 or x=2"), ("1,2", "x = 1, x = 2"), ("1,2", "x=1,2"), ("x=1,2", "1, 2"), (r"\{1,1,2\}", r"\{1,2\}"), (r"\{5\}", "5"), ("5", r"\{5\}"),
        (r"\{1\pm\sqrt{5},-2\}", r"-2, 1-\sqrt5, 1+\sqrt5"), (r"\left\{1,2\right\}", r"\{2,1\}"), (r"\emptyset", r"\varnothing"), (r"\emptyset", r"\{\}"), (r"\emptyset", "no solution"),
        (r"\{(1,2),(3,4)\}", r"\{(3,4),(1,2)\}"), ("69,84", "84 and 69"), ("-1,0,1", "0, 1, -1"), ("2; 3", "2, 3"), (r"1, \frac{1}{2}", "0.5, 1"), (r"\{x, y\}", r"\{y,x\}"),
        ("a=2, a=-6-4 \\sqrt{2}", r"2, -6-4\sqrt{2}"), ("f(x)=x, f(x)=-x", "x, -x"), ("100,200", "200,100"), (r"\frac{1}{3},1,\frac{1}{9}", "1/9, 1/3, 1"), ("1, 2, and 3", "1,2,3"),
    ],
    "plus or minus": [
        (r"\pm 2", "2,-2"), (r"2, -2", r"\pm 2"), (r"x=\pm 2", r"\{-2, 2\}"), (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"), (r"3 \pm 2 \sqrt{2}", r"3+2\sqrt{2}, 3-2\sqrt{2}"),
        (r"1 \pm \sqrt{19}", r"1 \pm \sqrt{19}"), (r"\frac{3 \pm \sqrt{21}}{2}", r"\frac{3+\sqrt{21}}{2}, \frac{3-\sqrt{21}}{2}"), (r"\pm\sqrt2", r"±√2"), (r"\pm 1", r"\mp 1"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"), (r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}", r"\begin{pmatrix}-\frac13\\ \frac23\\ \frac53\end{pmatrix}"),
        (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"-\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}"), (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{array}{c}1\\2\end{array}"),
        (r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", r"\frac15\begin{pmatrix}1\\-18\end{pmatrix}"), (r"\begin{pmatrix} -7 \\ 16 \\ 5 \end{pmatrix}", "(-7,16,5)"), (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "[[1,2],[3,4]]"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\left(\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}\right)"), (r"\begin{pmatrix} 16/49 \\ 48/49 \end{pmatrix}", r"\begin{pmatrix} \dfrac{16}{49} \\[4pt] \dfrac{48}{49} \end{pmatrix}"),
    ],
    "percent": [
        (r"10\%", "10%"), (r"10\%", "10"), (r"10\%", "0.1"), ("10", r"10\%"), ("0.1", r"10\%"), ("62.5%", "62.5"), (r"8 \%", r"8\%"), ("17.5%", r"17.5\%"), ("50", r"$50\%$"), ("20", "20 percent"), (r"\frac{1}{4}", r"25\%"),
    ],
    "units": [
        ("5 cm", "5"), ("5", "5 cm"), ("5", r"5\text{ cm}"), ("5", r"5 \text{ cm}^2"), (r"864 \mbox{ inches}^2", "864"), (r"15\mbox{ cm}^2", r"15 \text{ square centimeters}"), (r"5.4 \text{ cents}", "5.4"), ("10", "10 apples"),
        ("36", r"\$36"), (r"\$36", "36"), (r"\$18.90", "18.9"), ("18.90", "$18.90"), ("36", "36 dollars"), ("36", "€36"), ("3", r"3 \text{ hours}"), ("3", "3 hours"), ("3", "3 days."), (r"\frac{600}{7}", r"\frac{600}{7} \text{ km/h}"),
        ("1.6", r"1.6 \mathrm{~cm}"), ("300", r"300 \mathrm{~km} / \mathrm{s}"), ("11000", r"11000 \mathrm{kcal} \mathrm{m}^{-2} \mathrm{yr}^{-1}"), ("1 hour", "60 minutes"), (r"4080", "4080 angstroms"), ("100", "100 square feet"),
        ("12", r"12\ \text{units}"), (r"2\pi", r"2\pi \text{ radians}"), (r"25\sqrt{3}", r"25\sqrt{3}\text{ square units}"), ("48", "48 km per hour"), ("7", r"7\,\text{m/s}"), ("3", "3rd"), ("$5", "5 USD"),
        ("100", "about 100"), ("100", r"\approx 100"), ("8", "8 ways"), ("64", r"64\text{ in}^3"),
    ],
    "degrees": [
        (r"90^\circ", "90"), ("90", r"90^\circ"), ("90", r"90^{\circ}"), ("90", "90°"), ("90", "90 degrees"), (r"90^\circ", r"90 \text{ degrees}"), (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}^\circ"), ("41.8", r"41.8^{\circ}"), ("-30", r"-30^\circ"),
        ("45", r"45\degree"), (r"928", r"928^{\circ} \mathrm{C}"),
    ],
    "choices": [
        (r"\text{(C)}", "C"), (r"\text{(C)}", "(C)"), (r"\text{(C)}", r"\text{C}"), ("C", "(C)"), ("C", "C."), ("C", "C)"), ("C", r"\textbf{(C)}"), ("C", r"\text{(C)}"), ("C", "(C) 12"), ("C", "C. 12"), ("C", "Option C"), ("C", r"\mathrm{(C)}"), ("C", r"\textbf{(C) } 12"),
        (r"\text{(E)}", "E"), ("12", "(C) 12"), ("B", r"\boxed{\text{B}}"),
    ],
    "words": [
        (r"\text{Evelyn}", "Evelyn"), (r"\text{Evelyn}", r"\text{evelyn}"), ("Evelyn", r"\mathrm{Evelyn}"), (r"\text{even}", "even"), (r"\text{east}", r"\text{East}"), ("Yes", "yes"), ("Yes", r"\text{Yes}"), ("No", "No."), (r"\text{ellipse}", "an ellipse"), ("True", "true"), (r"\text{Sue}", "Sue"),
        (r"\text{No solution}", "no solutions"), ("Monday", r"\textbf{Monday}"), (r"\text{Navin}", "$\\text{Navin}$"), ("undefined", "Undefined"), (r"\infty", "infinity"), (r"-\infty", "-infinity"), ("AB", r"\text{AB}"), ("odd", r"\text{odd}"), ("red, blue", r"\text{red and blue}"),
    ],
    "times, ratios, bases": [
        ("10:30", "10:30"), ("10:30", r"10\!:\!30"), ("10:30", "10:30 AM"), ("10:30", r"10:30 \text{ a.m.}"), ("3:4", "3 : 4"), ("3:4", "6:8"), ("3:4:5", "3:4:5"), (r"10_2", r"10_{2}"), (r"4210_{5}", "4210_5"), (r"52_8", r"52_{\text{eight}}"), (r"1:\sqrt{3}", r"1 : \sqrt3"), ("1:2", r"1:2"),
    ],
    "whole outputs": [
        ("18", "She sells 9 eggs.\n9 * 2 = <<9*2=18>>18\n#### 18"), ("18", "#### $18"), ("2125", "#### 2,125"), ("20", "#### 20%"), ("18", "So she makes $18 every day."), ("18", "Thus 3 + 15 = 18."), ("18", "The answer is 18."), ("18", "The answer is $18$ dollars."),
        ("18", "The final answer is $\\boxed{18}$."), (r"\frac{1}{2}", "Final Answer: The final answer is $\\frac{1}{2}$. I hope it is correct."), ("18", "Answer: 18"), ("18", "**Answer:** 18"), ("18", "**Final Answer**\n\n18"), ("18", "<think>It may be \\boxed{17}.</think>It is \\boxed{18}."),
        ("18", "First \\boxed{17}, no: \\boxed{18}."), ("18", "Put your answer in \\boxed{}. So \\boxed{18}. Thanks: \\boxed{}"), ("18", "It is \\boxed{18}. And then \\boxed{\\frac{1"), (r"\frac{1}{2}", "It is $\\boxed{\\frac{1}{\\text{2}}}$."), ("18", r"so we get \boxed 18 ."), ("18", r"so \boxed18."),
        ("1,2", r"The roots are $\boxed{1}$ and $\boxed{2}$."), ("2", r"So $x=1$. Then $y = 2$."), (r"x^2+1", r"Hence the polynomial is $x^2+1$."), (r"\frac{3}{4}", r"The probability is \(\frac{3}{4}\)."), ("-3", "The temperature is -3 degrees."), ("7", "10 - 3 = 7"),
        ("3", "We find that x equals\n\\[ x = 3. \\]"), ("64", "The correct answer is: 64"), ("C", "The answer is (C)."), ("C", "The correct option is C, so the answer is C."), ("1/2", "The answer is one half, i.e. \\boxed{\\frac12}"), ("5", "the answer is therefore $x = 5$."), ("42", "Answer: $42$\n\nQuestion: what next?"),
        ("0.5", "The value of the expression is 0.5."), ("3", "There are 3 of them.\n\n"), ("65960", "#### 65,960 dollars"), ("1.5", "The answer is 1.5."), ("x^2", "The answer is x^2."), ("12", "The total is 12 apples."), (r"(1,2)", r"The point is $(1,2)$."), ("18", "The answer is:\n\n$$18$$"), ("18", "The answer is:\n\\[\n18\n\\]"),
        (r"\frac{\pi}{6}", "Therefore, the answer is $\\theta = \\frac{\\pi}{6}$."), ("20", r"\boxed{20\%}"), ("5", r"\boxed{x = 5}"), ("5", r"\boxed{5 \text{ cm}}"), ("2", "Final answer: 2"), ("10080", r"The final answer is \boxed{10{,}080}."), ("3", "The answer is **3**."), ("7", "So the result is 7."),
    ],
}

DIFFERENT = {
    "numbers": [
        ("100000", "100001"), ("100000", "100000.5"), ("50", "0.5"), ("0.5", "50"), ("3", "300"), ("1", "100"), ("42", "43"), ("42", "-42"), ("42", "4.2"), ("42", "420"), ("7", "70"), ("1000", "1,00"), ("12", "1.2"), ("1.25", "1.26"), ("0", "0.001"),
        (r"\frac{1}{3}", "0.333"), (r"\frac13", "0.33"), (r"\sqrt{2}", "1.414"), (r"\pi", "3.14"), (r"\pi", r"\frac{22}{7}"), ("3.14", r"\pi"), (r"\frac12", "2"), (r"\frac{2}{3}", r"\frac{3}{2}"), (r"1\frac45", r"\frac45"), (r"1\frac{4}{5}", "14/5"), ("2.5", "25"),
        ("4.5e33", "4.5e32"), ("4.5e33", "4.5e + 33"), ("4.5e33", "4.5 e^{33}"), ("4.5e33", "4.5"), ("1e-5", "1e5"), ("2^{1009}", "2^{1009}+1"), (r"\sqrt{2}", "2"), (r"\sqrt{2}", r"\sqrt{3}"), (r"\sqrt[3]{2}", r"\sqrt{2}"), ("1024", "2^{9}"), ("10", "10!"),
        ("5", "-5"), ("5", "|x|"), ("999999", "1000000"), (r"\frac{355}{113}", r"\pi"), ("0.1", "1"), ("10000000000000001", "10000000000000000"), ("123456789", "123456788"),
    ],
    "expressions": [
        ("x+1", "x-1"), ("x^2", "2x"), ("x^2", "x^3"), ("xy", "x+y"), ("2x", "x"), ("x", "y"), ("x", "X"), ("(x+1)^2", "x^2+1"), ("a_1", "a_2"), ("x_1", "x"), (r"\sin x", r"\cos x"), (r"\sin 2x", r"2 \sin x"), (r"\ln x", r"\log_{10} x"), ("e^x", "x^e"), ("|x|", "x"),
        (r"\sqrt{x}", "x"), ("2^n", "n^2"), (r"n!", "n"), (r"\binom{n}{2}", r"\binom{n}{3}"), (r"\frac{a}{b}", r"\frac{b}{a}"), ("a-b", "b-a"), ("6m", "6"), ("6", "6m"), ("3n", "3"), ("i", "1"), ("6-5i", "6+5i"), (r"\lfloor x \rfloor", r"\lceil x \rceil"), ("(a+5)(b+2)", "(+5)(b+2)"),
        ("x", "x'"), ("1/x", "x"), (r"\frac{1}{2x}", r"\frac{1}{2}x"), (r"2\pi r", r"\pi r^2"),
    ],
    "equations": [
        ("x=5", "x=6"), ("x=5", "y=5"), ("x=5", r"x \neq 5"), ("y=2x+3", "y=2x-3"), ("y=2x+3", "x=2y+3"), ("x^2+y^2=4", "x^2+y^2=2"), ("x+y=3", "3"), ("x+y=3", "x+y"), ("x=5", "x>5"), ("x=1", "x=1 or x=2"), ("f(x)=x+1", "f(n)=x"), ("5", "x=6"), ("y=2x", "y=-2x"),
    ],
    "inequalities and intervals": [
        ("x>2", r"x\ge 2"), ("x>2", "x<2"), ("x>2", "2"), (r"(2,\infty)", r"[2,\infty)"), ("(1,2]", "(1,2)"), ("[1,2]", "(1,2)"), ("(1,2)", "[1,2]"), (r"(0,9) \cup (9,36)", "(0,36)"), (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,3)\cup(2,\infty)"), ("[-2,7]", "[-7,2]"), (r"-2\le x\le 7", r"-2<x<7"),
        ("x>2", "y>2"), (r"\mathbb{R}", r"(0,\infty)"), (r"(-\infty,0]", r"(-\infty,0)"), ("x+y<3", "x+y>3"), ("[1,2]", r"\{1,2\}"), (r"x \neq 3", "3"), (r"(3,5)", r"x \in [3,5)"),
    ],
    "tuples, sets, lists": [
        ("(1,2)", "(2,1)"), (r"\{1,2\}", "(1,2)"), ("(1,2)", r"\{1,2\}"), ("(1,2)", r"\{2,1\}"), ("(1,2)", "2,1"), ("(1,2)", "(1,2,3)"), ("1,2", "1"), ("1", "1,2"), ("1,2", "1,3"), ("1,2,2", "1,2,3"), (r"\{1,2\}", r"\{1,2,3\}"), (r"\{1,2,3\}", r"\{1,2\}"), ("1,2", "12"), ("12", "1,2"), ("1,2", "1.2"),
        (r"\pm 2", "2"), ("2", r"\pm 2"), (r"1 \pm \sqrt{19}", r"1+\sqrt{19}"), (r"1\pm\sqrt{19}", r"1\pm\sqrt{17}"), (r"\emptyset", "0"), ("0", r"\emptyset"), ("(1,2),(3,4)", "(1,3),(2,4)"), ("(3,5,7)", "7,5,3"), (r"\{1\}", "2"), ("(1,2)", "12"), ("(0,1)", "0"), ("x=1,y=2", "x=2,y=1"), ("x=1,y=2", "(2,1)"),
        ("1,2,3", "1,2"), (r"\{(1,2)\}", r"\{(2,1)\}"), ("(1,2)", "1/2"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"), (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"), (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(2,1)"), (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "3"),
        (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", "1"), (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \\ 3 \end{pmatrix}"),
    ],
    "percent and units": [
        (r"10\%", "1000"), ("10", "0.1"), ("0.5", r"0.5\%"), (r"10\%", r"20\%"), ("5 cm", "5 m"), ("5 hours", "5 minutes"), ("5 cm", "6 cm"), (r"90^\circ", "80"), ("36", r"\$35"), (r"5.4 \text{ cents}", r"5.4 \text{ dollars}"), ("50%", "0.05"), ("1", r"1\%"),
    ],
    "words and choices": [
        (r"\text{(C)}", "D"), ("C", "(D)"), ("C", "(D) 12"), ("C", "A, B, C"), ("C", "Cat"), (r"\text{Evelyn}", "Evan"), (r"\text{even}", "odd"), ("Yes", "No"), (r"\text{even}", "neve"), ("Evelyn", "5"), ("5", "Evelyn"), ("5", "six"), (r"\text{east}", "seat"), ("12", "(C) 13"), ("no solution", "0"), ("yes", "yes and no"),
        (r"\text{Navin}", r"\text{not Navin}"), ("C", ""), ("12", ""), ("True", "False"), ("undefined", "0"), (r"\infty", r"-\infty"), (r"\infty", "1000000"),
    ],
    "times, ratios, bases": [
        ("10:30", "10:03"), ("10:30", "1:3"), ("10:30", "1/3"), ("10:30", "30:10"), ("10:30", "1030"), ("3:4", "4:3"), ("10_2", "10_3"), ("10_2", "102"), ("10_2", "10"), ("52_8", "52"), (r"4210_5", "4210_6"), ("3:4:5", "3:4:6"), ("10:30", "10.5"),
    ],
    "whole outputs": [
        ("18", "#### 19"), ("18", "It is not 18 but \\boxed{19}."), ("18", "First \\boxed{18}, no: \\boxed{17}."), ("1", r"The roots are $\boxed{1}$ and $\boxed{2}$."), ("1,2", r"\boxed{2}"), ("18", ""), ("18", "I do not know."), ("18", "The answer is 118."), ("18", "The answer is 18.5."), ("18", "The answer is 1.8"), ("5", "The answer is -5."),
        ("5", "So $x = 5$ or $x=6$."), ("18", "<think>\\boxed{18}</think>It is \\boxed{17}."), ("18", "18 eggs, so she makes 19."), ("5", r"\boxed{__import__('os').getpid()}"), ("5", r"\boxed{5^{5^{5}}}"), ("18", "#### 18.5"), ("2", "10 - 2 = 8"), ("5", r"\boxed{5x}"), ("7", r"\boxed{\text{None}}"), ("25", r"\boxed{5^2+1}"),
        ("4", "The answer is 2, 4."), ("18", "The answer is 180."), ("1", "The answer is 1/2."), ("3", "The answer is 1,003."),
    ],
}
# fmt: on
