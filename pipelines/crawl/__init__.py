"""Crawl files to records, records to decoded HTML, HTML to main text."""
