"""XMP sidecars as photo programs write them; each has the keywords `Zoo` and `animals|cat`."""

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
LR = 'xmlns:lr="http://ns.adobe.com/lightroom/1.0/"'

# Simple values are attributes; lists of edits follow the keywords.
DARKTABLE = f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF {RDF}>
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:darktable="http://darktable.sf.net/"
    {DC}
    {LR}
   xmp:Rating="1"
   darktable:xmp_version="5"
   darktable:history_end="1">
   <darktable:history>
    <rdf:Seq>
     <rdf:li
      darktable:num="0"
      darktable:operation="flip"
      darktable:params="ffffffff"/>
    </rdf:Seq>
   </darktable:history>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>animals</rdf:li>
     <rdf:li>cat</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Seq>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>animals|cat</rdf:li>
     <rdf:li>darktable|format|jpg</rdf:li>
    </rdf:Seq>
   </lr:hierarchicalSubject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
# A packet wrapper with a byte order mark as value, and keywords in the lists of four programs.
DIGIKAM = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF {RDF}>
  <rdf:Description rdf:about=""
    xmlns:digiKam="http://www.digikam.org/ns/1.0/"
    xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/"
    xmlns:mediapro="http://ns.iview-multimedia.com/mediapro/1.0/"
    {DC}
    {LR}
   digiKam:PickLabel="0">
   <digiKam:TagsList>
    <rdf:Seq>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>animals/cat</rdf:li>
    </rdf:Seq>
   </digiKam:TagsList>
   <MicrosoftPhoto:LastKeywordXMP>
    <rdf:Bag>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>animals/cat</rdf:li>
    </rdf:Bag>
   </MicrosoftPhoto:LastKeywordXMP>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>animals|cat</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <mediapro:CatalogSets>
    <rdf:Bag>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>animals|cat</rdf:li>
    </rdf:Bag>
   </mediapro:CatalogSets>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>cat</rdf:li>
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
# Develop settings as attributes, text with entities, and no XML declaration.
LIGHTROOM = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0-c000 1.000000">
 <rdf:RDF {RDF}>
  <rdf:Description rdf:about=""
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    {DC}
    {LR}
   crs:WhiteBalance="As Shot > 5000"
   crs:HasSettings="True">
   <dc:rights><rdf:Alt><rdf:li xml:lang="x-default">Tom &amp; Jo</rdf:li></rdf:Alt></dc:rights>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>cat</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>Zoo</rdf:li>
     <rdf:li>animals|cat</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
# Flat keywords in an rdf:Seq, and one rdf:Description per namespace.
APPLE = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 6.0.0">
   <rdf:RDF {RDF}>
      <rdf:Description rdf:about=""
            xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">
         <photoshop:DateCreated>2024-05-01T10:00:00Z</photoshop:DateCreated>
      </rdf:Description>
      <rdf:Description rdf:about=""
            {DC}>
         <dc:subject>
            <rdf:Seq>
               <rdf:li>Zoo</rdf:li>
               <rdf:li>animals</rdf:li>
               <rdf:li>cat</rdf:li>
            </rdf:Seq>
         </dc:subject>
      </rdf:Description>
   </rdf:RDF>
</x:xmpmeta>"""
# Apostrophes, short end tags on the same line, and white space as padding before the end.
EXIFTOOL = f"""<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='Image::ExifTool 12.57'>
<rdf:RDF {RDF.replace('"', "'")}>

 <rdf:Description rdf:about=''
  {DC.replace('"', "'")}>
  <dc:subject>
   <rdf:Bag>
    <rdf:li>Zoo</rdf:li>
    <rdf:li>animals</rdf:li>
   </rdf:Bag>
  </dc:subject>
 </rdf:Description>

 <rdf:Description rdf:about=''
  {LR.replace('"', "'")}>
  <lr:hierarchicalSubject><rdf:Bag><rdf:li>animals|cat</rdf:li></rdf:Bag></lr:hierarchicalSubject>
 </rdf:Description>
</rdf:RDF>
</x:xmpmeta>
{(" " * 99 + chr(10)) * 3}<?xpacket end='w'?>"""
# Other prefixes, a comment, CDATA, Windows line ends, and no x:xmpmeta.
UNUSUAL = f"""<?xml version='1.0'?>
<r:RDF {RDF.replace("xmlns:rdf", "xmlns:r")}>
 <!-- <r:RDF> by hand -->
 <r:Description r:about="uuid:1&amp;2" {DC.replace("xmlns:dc", "xmlns:d")}>
  <d:subject><r:Bag><r:li><![CDATA[Zoo]]></r:li> <r:li>animals|c&#97;t</r:li></r:Bag></d:subject>
 </r:Description>
</r:RDF>
""".replace("\n", "\r\n")

PROGRAMS = {
    "darktable": DARKTABLE.encode(),
    "digikam": DIGIKAM.encode(),
    "lightroom": LIGHTROOM.encode(),
    "apple": APPLE.encode(),
    "apple with a byte order mark": APPLE.encode("utf-8-sig"),
    "exiftool": EXIFTOOL.encode(),
    "exiftool with padding": EXIFTOOL.encode() + b"\0\0",
    "unusual": UNUSUAL.encode(),
}

BOMB = f"""<!DOCTYPE x [<!ENTITY a "zoo"><!ENTITY b "{"&a;" * 99}"><!ENTITY c "{"&b;" * 99}">]>
<rdf:RDF {RDF}><rdf:Description {DC}><dc:subject><rdf:Bag><rdf:li>&c;</rdf:li></rdf:Bag>
</dc:subject></rdf:Description></rdf:RDF>"""
BROKEN = {
    "empty": (b"", "not XML in UTF-8 (no element found"),
    "blank": (b"\n \0\0", "not XML"),
    "text": (b"My cat", "not XML"),
    "picture": (b"\xff\xd8\xff\xe0", "not XML"),
    "cut": (DARKTABLE.encode()[:900], "not XML"),
    "two packets": (APPLE.encode() * 2, "not XML"),
    "prefix without namespace": (DARKTABLE.replace(DC, "").encode(), "not XML"),
    "entity bomb": (BOMB.encode(), "declares a DOCTYPE"),
    "external entity": (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "declares a DOCTYPE"),
    "wrong root": (b"<html><body/></html>", "expected the element rdf:RDF, not 'html'"),
    "no rdf": (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>', "expected the element rdf:RDF"),
    "wrong encoding": (LIGHTROOM.replace("Jo", "J\xf6").encode("latin-1"), "not XML in UTF-8"),
    "UTF-16": (LIGHTROOM.encode("utf-16"), "not XML in UTF-8"),
    "UTF-16 without a mark": (LIGHTROOM.encode("utf-16-le"), "not XML in UTF-8"),
    "latin-1": (b'<?xml version="1.0" encoding="latin-1"?><x/>', "encoded in latin-1, expect"),
    "unknown encoding": (b'<?xml version="1.0" encoding="hex"?><x/>', "encoded in hex, expected"),
}


def list_keywords(*items: str) -> str:
    """Return a sidecar with flat keywords."""
    lines = "".join(f"<rdf:li>{item}</rdf:li>" for item in items)
    subject = f"<dc:subject><rdf:Bag>{lines}</rdf:Bag></dc:subject>"
    return f"<rdf:RDF {RDF}><rdf:Description {DC}>{subject}</rdf:Description></rdf:RDF>"
