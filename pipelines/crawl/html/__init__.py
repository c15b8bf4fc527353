"""One HTML page -> blocks -> which of them are main text -> text, without a parser's tree."""
