"""One frame of known colour, as nearly all HD video is coded, to ask a decoder for.

The file lies here as bytes, so that no encoder of the installation under test has a part in it.
"""

import tempfile
import zlib
from base64 import b85decode
from pathlib import Path

from stretchysnake.data.decoding.video import read_frames

SHOWN = (16, 192, 32)
"""The frame's RGB; decoded by BT.601's matrix it would be (29, 220, 36)."""

_FILE = (
    "c-nnby>1jS5cXcguMj^<iXalnh)}^@c9$fIBCQmNA`S^q8d4ynmCyEOm$TP<w(pWlML_|1018?vcmXP;6x2v`1W`bPpn*p?#+wUw"
    "2_!z-GvoPY#xvtRgb+?_x5$i=2vv}yutL(Ifh=YMgho86R0km>WG7{4-x&E(E)Tgm7~X!=L3t4!IVv!(SxuV2KeEj-=E%R^T<oLc"
    "{5S6T{z7PqGi!iOaAEAgqVKn~^<GJq5n!-n2XkL6*Ms+^P)(W8dzwzh_%L!6WK}0Q6Wn3E`!dTDV8%MKbUJ*^DYmPdV45dGX`E?m"
    "fp>ZDtg#IN{2OBp8^XMFO*^C%F6r~A4zzwK;@}wX^<ekG>ymeC`*iOc8eaqYdGm3lQhDN<;x_NZ^U)O#9ZNrW=iCj)8dmqqd0~6c"
    "ld)x~_u_i}W=uc^bpQF^H3quP{)?C&oKZE@Dwl1e&8%zDL&;0(#^vF5Knpb~3Nf5oHQVj^)z?-zhm(wy#${3Nl1?%g)&iJ*2=d89"
    "b7*K~Q349+<nd#@-o-D=Ki_@dslR=3{S)4~^6U3TI5&f<m@3V2FgFWqy#`0q_g0o~S7-3e)g{m|PC>Dximu>^#i8%tsD^&%(5bb>"
    "!u0g|`g+YhASFm%Q+jRM`K_f^3c#qsW-2!en34vek&oe#L;+^JArx&!{sR0k$%*J1?j$UE1P>USb^|yc7p4nv*kjG2pymSvHY~FZ"
    "&SK}wS;U&;Ydi|(Fio|RBnHy}Tg`>Y3?Sw=<{7oX(3XUqal$rL&Z9869t1cc#>RzdW(64a9khyAC5hqA$fg<$3@C+CO_G8T56+Cp"
    "C?6d7IM-zenn_~aHL~1tEeL?%ydm0}bYrSyLCOn3ZQze1%fSTzHF20k6Um*cb)K!Iwg9flyP%H3**!LfFVaP)Jm<9ST$SdoB$}Jl"
    "6`Dr0RbUB^o4ZQ3AU!}8P%LN()N%$2-->+qNuW{w?CHXVEmXPmaU0z^JC9Cnef<M=%_BA"
)
"""An mp4 (zlib, base85) of one frame of 16 x 16 pixels, all Y 139, Cb 75, Cr 57: H.264 by x264 at qp 10, tagged BT.709
matrix, primaries and transfer, limited range."""


def decoded_colour() -> tuple[int, int, int]:
    """The RGB that this installation gives for SHOWN; RuntimeError or DecodeError where it gives none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "green.mp4"
        path.write_bytes(zlib.decompress(b85decode(_FILE)))
        frame = read_frames(path, [0])[0]
    red, green, blue = frame.reshape(-1, 3).mean(0).round().astype(int).tolist()
    return red, green, blue
