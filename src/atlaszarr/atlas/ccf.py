"""Whether an annotation is the CCF. Only the CCF has a default name, version, ontology and credit.

It is the CCF if each of its volumes has the extent and the axes of the CCF, each label is the id of a structure of the
adult mouse, the labels are not just 1 to n, and the ontology, if one is given or named by the manifests of the
annotation, has the structure 997, the root of the adult mouse. An annotation without any label passes these rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..geometry.spaces import reference_space
from ..geometry.voxel_size import um
from ..reference_volumes import ReferenceVolume
from ..regions.volumes import ASSUMED_MIDLINE
from ..terminology.terminology import Terminology

#: Ids of all structures of structure graph 1 (adult mouse): api.brain-map.org/api/v2/structure_graph_download/1.json.
_STRUCTURES = """
1 2 3 4 6 7 8 9 10 11 12 14 15 16 17 18 19 20 21 22 23 25 26 27 28 29 30 31 33 34 35 36 37 38 39 41 42 43 44 45 46 47
48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86
87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119
120 121 122 123 124 125 126 127 128 129 130 131 132 133 134 135 136 137 138 139 140 141 142 143 144 145 146 147 148
149 150 151 152 153 154 155 156 157 158 159 160 161 162 163 164 165 166 167 168 169 170 171 173 174 175 177 178 179
180 181 182 183 184 185 186 187 188 189 190 191 192 193 194 195 196 197 198 199 200 201 202 203 204 205 206 207 208
209 210 211 212 213 214 215 216 217 218 219 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237
238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 259 260 261 262 263 264 266 267
268 269 270 271 272 274 275 276 277 278 279 280 281 283 284 285 286 287 288 289 290 291 292 293 294 295 296 297 298
299 300 301 302 303 304 305 306 307 308 309 310 311 312 313 314 315 316 317 318 319 320 321 322 323 324 325 326 327
328 329 330 331 332 333 334 335 336 337 338 339 340 341 342 343 344 345 346 347 348 349 350 351 352 353 354 355 356
357 358 359 360 361 362 363 364 365 366 367 368 369 370 371 372 373 374 375 376 377 378 379 380 381 382 383 384 385
386 387 388 389 390 391 392 393 394 395 396 397 398 399 400 401 402 403 404 405 406 407 408 409 410 411 412 413 414
415 416 417 418 419 420 421 422 423 424 425 426 427 428 429 430 431 432 433 434 435 436 437 438 439 440 441 442 443
444 445 446 447 448 449 450 451 452 453 454 455 456 457 458 459 460 461 462 463 464 465 466 467 468 469 470 471 472
473 474 475 476 477 478 479 480 481 482 483 484 485 486 487 488 489 490 491 492 493 494 495 496 497 498 499 500 501
502 503 504 505 506 507 508 509 510 511 512 513 514 515 516 517 518 519 520 521 522 523 524 525 526 527 528 529 530
531 532 533 534 535 536 537 538 539 540 541 542 543 544 545 546 547 548 549 550 551 552 553 554 555 556 557 558 559
560 561 562 563 564 565 566 567 568 569 570 571 572 573 574 575 576 577 578 579 580 581 582 583 584 585 586 587 588
589 590 591 592 593 594 595 596 597 598 599 600 601 602 603 604 605 606 607 608 609 610 611 612 613 614 615 616 617
618 619 620 621 622 623 624 625 626 627 628 629 630 631 632 633 634 635 636 637 638 639 640 641 642 643 644 645 646
647 648 649 650 651 652 653 654 655 656 657 658 659 660 661 662 663 664 665 666 667 668 669 670 671 672 673 674 675
676 677 678 679 680 681 682 683 684 685 686 687 688 689 690 691 692 693 694 695 696 697 698 699 700 701 702 703 704
705 706 707 708 709 710 711 712 713 714 715 716 717 718 719 720 721 722 723 724 725 726 727 728 729 730 731 732 733
734 735 736 737 738 739 740 741 742 743 744 745 746 747 748 749 750 751 752 753 754 755 756 757 758 759 760 761 762
763 764 765 766 767 768 769 770 771 772 773 774 775 776 777 778 779 780 781 782 783 784 785 786 787 788 789 790 791
792 793 794 795 796 797 798 799 800 801 802 803 804 805 806 807 808 809 810 811 812 813 814 815 816 817 818 819 820
821 822 823 824 825 826 827 828 829 830 831 832 833 834 835 836 837 838 839 840 841 842 843 844 845 846 847 848 849
850 851 852 853 854 855 856 857 858 859 860 861 862 863 864 865 866 867 868 869 870 871 872 873 874 875 876 877 878
879 880 881 882 883 884 885 886 887 888 889 890 891 892 893 894 895 896 897 898 899 900 901 902 903 904 905 906 907
908 909 910 911 912 913 914 915 916 917 918 919 920 921 922 923 924 925 926 927 928 929 930 931 932 933 934 935 936
937 938 939 940 941 942 943 944 945 946 947 948 949 950 951 952 953 954 955 956 957 958 959 960 961 962 963 964 965
966 967 968 969 970 971 972 973 974 975 976 977 978 979 980 981 982 983 984 985 986 987 988 989 990 991 992 993 994
995 996 997 998 999 1000 1001 1002 1003 1004 1005 1006 1007 1008 1009 1010 1011 1012 1014 1015 1016 1017 1018 1019
1020 1021 1022 1023 1024 1025 1026 1027 1028 1029 1030 1031 1032 1033 1034 1035 1036 1037 1038 1039 1040 1041 1042
1043 1044 1045 1046 1047 1048 1049 1050 1051 1052 1053 1054 1055 1056 1057 1058 1059 1060 1061 1062 1063 1064 1065
1066 1067 1068 1069 1070 1071 1072 1073 1074 1075 1076 1077 1078 1079 1080 1081 1082 1083 1084 1085 1086 1087 1088
1089 1090 1091 1092 1093 1094 1095 1096 1097 1098 1099 1100 1101 1102 1103 1104 1105 1106 1107 1108 1109 1110 1111
1112 1113 1114 1116 1117 1118 1119 1120 1121 1123 1124 1125 1126 1127 1128 1129 1131 1132 1133 1139 1140 1141 1142
1143 1144 1145 10671 10672 10673 10674 10675 10676 10677 10678 10679 10680 10681 10682 10683 10684 10685 10686 10687
10688 10689 10690 10691 10692 10693 10694 10695 10696 10697 10698 10699 10700 10701 10702 10703 10704 10705 10706
10707 10708 10709 10710 10711 10712 10713 10714 10715 10716 10717 10718 10719 10720 10721 10722 10723 10724 10725
10726 10727 10728 10729 10730 10731 10732 10733 10734 10735 10736 10737 12993 12994 12995 12996 12997 12998 182305689
182305693 182305697 182305701 182305705 182305709 182305713 304325711 312782546 312782550 312782554 312782558
312782562 312782566 312782570 312782574 312782578 312782582 312782586 312782590 312782594 312782598 312782604
312782608 312782612 312782616 312782620 312782624 312782628 312782632 312782636 312782640 312782644 312782648
312782652 480149202 480149206 480149210 480149214 480149218 480149222 480149226 480149230 480149234 480149238
480149242 480149246 480149250 480149254 480149258 480149262 480149266 480149270 480149274 480149278 480149282
480149286 480149290 480149294 480149298 480149302 480149306 480149310 480149314 480149318 480149322 480149326
480149330 480149334 480149338 484682470 484682475 484682479 484682483 484682487 484682492 484682496 484682500
484682504 484682508 484682512 484682516 484682520 484682524 484682528 496345664 496345668 496345672 526157192
526157196 526322264 527696977 549009199 549009203 549009207 549009211 549009215 549009219 549009223 549009227
560581551 560581555 560581559 560581563 563807435 563807439 576073699 576073704 589508447 589508451 589508455
599626923 599626927 606826647 606826651 606826655 606826659 606826663 607344830 607344834 607344838 607344842
607344846 607344850 607344854 607344858 607344862 614454277
"""
#: Identifiers of the root of that ontology, in the terminologies of the Allen Institute too.
_ROOTS = (997, "MBA:997")


@dataclass(frozen=True)
class Recognised:
    """The labels of an annotation, and whether it is the CCF.

    Attributes
    ----------
    labels : mapping of str to ndarray
        The labels of each volume, uint32, by its path or URL.
    in_frame : bool
        Whether all volumes have the extent and the axes of the CCF.
    difference : str
        How the annotation differs from the CCF, as a clause: ``its label 5 is not a structure of the CCF``; empty if it
        is the CCF.
    """

    labels: Mapping[str, NDArray[np.uint32]]
    in_frame: bool
    difference: str

    @classmethod
    def of(cls, annotation: Collection[ReferenceVolume], ontology: Terminology | None) -> Recognised:
        """Find the labels of the volumes, and compare volumes, labels and an ontology that is given with the CCF.

        Labels that are just 1 to n are the numbers of any list, although most of them are ids of the CCF too.

        Raises
        ------
        InputError
            If a value is not a label, or a volume is a part of the CCF.
        """
        _refuse_part(annotation)
        labels = {volume.uri: volume.find_labels() for volume in annotation}
        in_frame = all(volume.is_ccf for volume in annotation)
        every = np.unique(np.concatenate(list(labels.values())))
        other = np.setdiff1d(every, np.array(_STRUCTURES.split(), np.uint32))
        difference = ""
        if not in_frame:
            difference = "it has another extent or other axes"
        elif other.size:
            difference = f"its label {other[0]} is not a structure of the CCF"
        elif every.size and every[-1] == every.size:
            difference = "its only label is 1" if every.size == 1 else f"its labels are just 1 to {every.size}"
        elif ontology is not None and all(structure.id not in _ROOTS for structure in ontology):
            difference = f"its ontology has no structure {_ROOTS[0]}"
        return cls(labels, in_frame, difference)

    @property
    def is_ccf(self) -> bool:
        """Whether the annotation is the CCF, by all rules of this module."""
        return not self.difference

    @property
    def remarks(self) -> list[str]:
        """A remark that the midline is assumed, unless the volumes have the extent of the CCF."""
        return [] if self.in_frame else [ASSUMED_MIDLINE]

    @property
    def all_labels(self) -> list[int]:
        """The labels that occur in any of the volumes, sorted."""
        return sorted({int(label) for found in self.labels.values() for label in found})

    def refuse_defaults(
        self, name: str | None, version: str | None, ontology: Terminology | None, allow_unknown: bool
    ) -> None:
        """Refuse to leave out what only the CCF has a default for.

        The ontology alone may be left out for labels in the extent of the CCF if unknown labels are allowed: structure
        graph 1 then names those that it has.

        Parameters
        ----------
        name, version : str or None
            Of the atlas, as they are given.
        ontology : Terminology or None
            Given, or named by the manifests of the annotation.
        allow_unknown : bool

        Raises
        ------
        InputError
            If the annotation is not the CCF, and the name or the version is None; or the ontology is, unless it may be
            left out.
        """
        if self.is_ccf:
            return
        missing = [option for option, text in (("--name", name), ("--version", version)) if text is None]
        if ontology is None and not (self.in_frame and allow_unknown):
            missing.append("--ontology")
        if missing:
            raise InputError(
                f"{next(iter(self.labels))} is not recognised as the CCF: {self.difference}. Only the CCF has a "
                f"default {' and '.join(map(_word, missing))}; give {' and '.join(missing)}",
                code=f"missing-{_word(missing[0])}",
            )


def _refuse_part(annotation: Collection[ReferenceVolume]) -> None:
    """Refuse a part of the CCF along x, such as one half: its middle is not the midline, so it has no hemispheres.

    Raises
    ------
    InputError
    """
    for volume in annotation:
        if reference_space(9).lacks_part_of_x(volume.array.shape, volume.voxel_size):
            raise InputError(
                f"{volume.uri} has the extent of the CCF along z and y, but {um(volume.extent[2:])} along x; its "
                "midline is not known; give the whole volume, padded with 0 where it was cropped",
                code="part-of-ccf",
            )


def _word(option: str) -> str:
    return option.removeprefix("--")
