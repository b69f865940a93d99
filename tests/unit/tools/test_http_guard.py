"""Where the http tool may go: every spelling of an address, and every address that is not public."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from shared_libs.atomic import MisuseError, ToolError
from shared_libs.tools.http_guard import AllowList, not_public

ANYWHERE = AllowList(["*"])


@pytest.mark.promise("ssrf")
@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
        *("169.254.0.1", "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255"),
        *("240.0.0.1", "255.255.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9"),
        *("192.88.99.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "fd00:ec2::254"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::a00:1", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1", "2001:0:7f00:1::"),
        *("2606:4700::5efe:a00:1", "2606:4700:0:0:200:5efe:10.0.0.1", "fd00:42::42", "169.254.42.42"),
        *("2606:4700:1:2:3:4:169.254.169.254", "2606:4700:a9fe:a9fe::", "2606:4700:12:a9fe:a9:fe00::"),
        *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address):
    assert not_public(ip_address(address)) is not None
    with pytest.raises(ToolError, match="only public addresses are allowed here"):
        ANYWHERE.check_addresses(ANYWHERE.checked("https://example.com/"), [address])


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "100.128.0.1", "169.253.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_a_public_address_is_allowed(address):
    assert not_public(ip_address(address)) is None
    ANYWHERE.check_addresses(ANYWHERE.checked("https://example.com/"), [address])


@pytest.mark.promise("ssrf")
@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
        *("http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/"),
        *("http://127.0.0.1./", "http://0/", "http://017700000001/", "http://1.2.3.4.5/", "http://08.8.8.8/"),
        *("http://%31%32%37.0.0.1/", "http://１２７.０.０.１/", "http://127。0。0。1/", "http://①②⑦.0.0.1/"),
        *("http://example.com@127.0.0.1/", "http://user:pass@example.com/"),
        *("http://example.com\\@127.0.0.1/", "http://127.0.0.1\\.example.com/", "http://127.0.0.1\t.example.com/"),
        *("http://exam ple.com/", "http://example.com\r\nHost: 127.0.0.1/", "http://ex\x00ample.com/"),
        *("http://[fe80::1%25eth0]/", "http://[::1", "http://example.com:0/", "http://example.com:99999/"),
        *("file:///etc/passwd", "ftp://example.com/", "gopher://example.com/", "data:text/plain,x", "javascript:1"),
        *("example.com", "//example.com/", "http:///x", "http:example.com", "", "http://a..b/", "http://.com/"),
        *("http://example.com:22/", "http://example.com:443/", "https://example.com:80/", "https://8.8.8.8:6379/"),
        f"http://{'a' * 64}.com/",
    ],
)
def test_no_spelling_of_a_url_gets_through(url):
    with pytest.raises(ToolError):
        ANYWHERE.checked(url)


@pytest.mark.parametrize(
    ("allow", "yes", "no"),
    [
        (
            ["example.com"],
            ["http://example.com/x?y=1", "https://EXAMPLE.com"],
            ["http://a.example.com", "http://b.org"],
        ),
        (["*.example.com"], ["https://a.b.example.com"], ["https://example.com", "https://badexample.com"]),
        (["example.com:8080"], ["http://example.com:8080", "https://example.com:8080"], ["http://example.com"]),
        (["https://example.com"], ["https://example.com"], ["http://example.com", "http://example.com:443"]),
        (["http://127.0.0.1:99"], ["http://127.0.0.1:99/"], ["https://127.0.0.1:99", "http://127.0.0.2:99"]),
        (["[::1]:99"], ["http://[::1]:99", "http://[0:0::1]:99"], ["http://[::1]", "http://[::2]:99"]),
        (["bücher.example"], ["https://bücher.example", "https://xn--bcher-kva.example"], ["https://bucher.example"]),
        (["*", "10.0.0.1"], ["https://8.8.8.8", "http://10.0.0.1"], ["http://10.0.0.2", "http://10.0.0.1:81"]),
    ],
)
def test_the_list_says_which_hosts_and_ports(allow, yes, no):
    allowed = AllowList(allow)
    for url in yes:
        assert allowed.checked(url)
    for url in no:
        with pytest.raises(ToolError, match=r"not allowed; allowed: |only public"):
            allowed.checked(url)


@pytest.mark.promise("ssrf")
def test_a_name_reaches_a_private_address_only_when_both_are_on_the_list():
    def check(allow, url, address):
        listed = AllowList(allow)
        listed.check_addresses(listed.checked(url), ["8.8.8.8", address])

    check(["intern.example", "10.0.0.5"], "http://intern.example/", "10.0.0.5")
    check(["localhost"], "http://localhost/", "127.0.0.1")
    check(["localhost"], "http://localhost/", "::1")
    for allow, url, address in [
        (["intern.example"], "http://intern.example/", "10.0.0.5"),
        (["intern.example", "10.0.0.5"], "http://intern.example/", "10.0.0.6"),
        (["intern.example", "10.0.0.5:81"], "http://intern.example/", "10.0.0.5"),
        (["*.example", "10.0.0.5"], "http://intern.example/", "10.0.0.5"),
        (["*", "localhost"], "http://evil.example/", "127.0.0.1"),
        (["localhost"], "http://localhost/", "10.0.0.1"),
    ]:
        with pytest.raises(ToolError, match=r"the name .* stands for a (private|loopback) address"):
            check(allow, url, address)


def test_a_long_list_is_told_in_part():
    with pytest.raises(ToolError, match=r"allowed: h0\.example, .*, h29\.example, 70 more$"):
        AllowList([f"h{number}.example" for number in range(100)]).checked("https://example.com")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("", "is no host"),
        ("ftp://example.com", "is no host"),
        ("example.com/path", "is no host"),
        ("me@example.com", "is no host"),
        ("::1", "IPv6 in brackets"),
        ("exa*mple.com", "*.example.com or *"),
        ("*example.com", "*.example.com or *"),
        ("*.*.com", "*.example.com or *"),
        ("*.10.0.0.1", "wildcard before an address"),
        ("0x7f.1", "is no host"),
        ("example.com:0", "ports are 1 to 65535"),
        ("example.com:70000", "ports are 1 to 65535"),
        ("169.254.169.254", "metadata service"),
        ("[fd00:ec2::254]:80", "metadata service"),
    ],
)
def test_an_entry_that_is_none_is_told(entry, said):
    with pytest.raises(MisuseError) as caught:
        AllowList([entry])
    assert said in str(caught.value)
    assert str(caught.value).startswith("allow: ")


@pytest.mark.parametrize("entries", [[], "example.com"])
def test_a_list_has_to_be_given(entries):
    with pytest.raises(MisuseError, match="give a list of hosts"):
        AllowList(entries)
