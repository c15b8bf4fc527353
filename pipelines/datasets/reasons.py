"""The closed vocabulary of the ledger: why a record was rejected, failed or changed."""

from __future__ import annotations

REASONS: dict[str, str] = {
    # failed: could not be read
    "truncated_record": "the record ends before the length it declares",
    "corrupt_member": "the compressed member, stream or row group cannot be decoded to its end",
    "garbage_between_records": "bytes between two records that belong to neither",
    "bad_content_length": "the record's Content-Length is absent, no number, or not where the next record begins",
    "header_over_bound": "the record's header is larger than the bound",
    "record_over_bound": "the record inflates to more than the bound",
    "not_a_record": "what stands there is no record: no WARC version line, no JSON object, no text in the row",
    "not_a_warc": "the file holds no record of the form that it is read as",
    "no_target_uri": "the record names no WARC-Target-URI",
    "bad_http_head": "the HTTP status line cannot be read",
    "bad_encoding": "the body cannot be decompressed as its Content-Encoding says",
    "engine_error": "the extraction engine raised an error on this page",
    "page_time": "the page took longer than the bound on time and was ended",
    "page_memory": "the page took more memory than the bound and was ended",
    "page_crash": "the page ended the process that worked on it",
    # rejected by extraction
    "http_status": "the server answered with another status than 200",
    "not_html": "the body is not HTML",
    "bad_url": "the target URI has no host or is too long",
    "too_long": "the page is larger than the bound",
    "too_deep": "the page nests elements deeper than the bound",
    "too_many_tags": "the page has more tags than the bound",
    "too_many_attributes": "an element has more attributes than the bound",
    "empty": "no main text was found",
    "language": "the text is in a language that is not wanted",
    "sniffed_language": "a look before extraction found next to nothing in a wanted language",
    "sniffed_short": "a look before extraction found fewer letters than the bound",
    "opt_out": "the publisher asks not to be used, and the policy honours it",
    # rejected by filter_documents, from annotations
    "duplicate": "an equal or nearly equal document was kept instead",
    "low_quality": "the quality model's score is below the threshold",
    "too_short": "fewer characters than the bound",
    "few_words": "fewer words than the bound",
    "filler_text": "the text holds the filler of page templates (lorem ipsum)",
    "too_many_words": "more words than the bound",
    "word_length": "the mean word length is outside the bounds",
    "symbols": "too many # and ellipses for the number of words",
    "bullet_lines": "too many lines begin with a bullet",
    "ellipsis_lines": "too many lines end with an ellipsis",
    "few_letters": "too small a share of letters",
    "few_stop_words": "hardly any stop words: a list, a menu, or no prose",
    "duplicate_lines": "too many lines repeat earlier ones",
    "duplicate_paragraphs": "too many paragraphs repeat earlier ones",
    "frequent_ngram": "one n-gram makes up too much of the text",
    "repeated_ngrams": "repeated n-grams cover too much of the text",
    "line_ends": "too few lines end a sentence",
    "short_lines": "too many short lines",
    # rejected by tokenize_documents
    "no_tokens": "the text encodes to no token",
    "holds_special_token": "the text holds a reserved token",
    # kept, in the ledger of a retry
    "retried": "the record was tried again and is a document now",
}
