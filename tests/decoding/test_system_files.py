import pytest

from phototag.decoding.system_files import describe_system_files, is_system_file, split_system_files


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store", "images/._im1.jpg", "__MACOSX/images/im1.jpg", "Icon\r",
        ".Trashes/501/im1.jpg", "Thumbs.db", "THUMBS.DB", "Desktop.ini",
        "$RECYCLE.BIN/im1.jpg", "System Volume Information/x", "im1.jpg:Zone.Identifier",
        "images/@eaDir/im1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/im1.jpg", "im1.jpg@SynoEAStream",
        "lost+found/x", "Picasa.ini", "im1.xmp", "im1.jpg.XMP", "im1.aae",
        "im1.jpg.part", "im1.jpg.k2p4.partial", "im1.jpg.crdownload", "im1.jpg~",
        "im1.jpg.bak", "~$im1.jpg", "~syncthing~im1.jpg.tmp", ".git/objects/im1.jpg",
    ],
)  # fmt: skip
def test_system_files_are_recognised(name: str) -> None:
    assert is_system_file(name)


@pytest.mark.parametrize(
    "name",
    [
        "im1.jpg", "images/im1.jpg", "im1", "photo.jpg", "im1.thumb.jpg", "Icon.png",
        "icons/im1.jpg",
        "recycle/im1.jpg", "thumbs/im1.jpg", "tmp/im1.jpg", "part.jpg", "im1 (1).jpg",
        "im7 copy.jpg",
        "im1.sync-conflict-20240101-120000-ABCDEFG.jpg", "annotations/desktop.txt",
        "annotations/git.txt", "annotations/part.txt", "sources.csv",
    ],
)  # fmt: skip
def test_other_files_are_not_system_files(name: str) -> None:
    assert not is_system_file(name)


def test_split_keeps_the_order() -> None:
    own, system = split_system_files(["im2.jpg", "._im2.jpg", "im1.jpg", "._im1.jpg"])
    assert (own, system) == (["im2.jpg", "im1.jpg"], ["._im2.jpg", "._im1.jpg"])


def test_description_counts_system_files_and_shows_one() -> None:
    sentence = "2 system files were ignored, such as '._im2.jpg'."
    assert describe_system_files(["._im2.jpg", "._im1.jpg"]) == [sentence]
    assert describe_system_files([]) == []
