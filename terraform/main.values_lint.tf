# What a values file may not contain.
#
# Helm reads YAML 1.1, Terraform's yamldecode a mixture: 0644 is 420 to Helm and 644 here, 2024-01-01 stays a string in
# Helm and becomes 2024-01-01T00:00:00Z here, 1_000 and 0b101 are numbers to Helm and strings here (seen with Terraform
# 1.11). The overlay repeats lists from these files, so that such a value would change its meaning on the way through.
# Parsed values no longer tell which they were; the text does, and it knows the line.

locals {
  values_text = { for path in var.osmo_values_files : path => try(file(path), "") }

  # Line by line: quoted strings and comments blanked, so that what they hold is not judged.
  values_lines = {
    for path, text in local.values_text : path => [
      for line in split("\n", replace(text, "\r\n", "\n")) : replace(
        replace(
          replace(line, "/\"(?:[^\"\\\\]|\\\\.)*\"/", "\"\""),
          "/'(?:[^']|'')*'/", "''"
        ),
        "/(^|\\s)#.*$/", ""
      )
    ]
  }
  values_indents = {
    for path, lines in local.values_lines : path => [
      for line in lines : trimspace(line) == "" ? 9999 : length(regex("^ *", line))
    ]
  }

  # Lines inside a block scalar (`key: |`) are text: from its header to the first line that is indented no deeper.
  values_block_headers = {
    for path, lines in local.values_lines : path => [
      for number, line in lines : number if can(regex("(?:^|[:\\s-])\\s*(?:[!&]\\S+\\s+)*[|>][+-]?[0-9]?[+-]?\\s*$", line))
    ]
  }
  values_blocks = {
    for path, headers in local.values_block_headers : path => [
      for header in headers : {
        first = header + 1
        last = min(concat(
          [for number, indent in local.values_indents[path] : number - 1 if number > header && indent <= local.values_indents[path][header]],
          [length(local.values_lines[path]) - 1],
        )...)
      }
    ]
  }
  values_judged = {
    for path, lines in local.values_lines : path => [
      for number, line in lines : { number = number + 1, line = line }
      if trimspace(line) != "" && !anytrue([for block in local.values_blocks[path] : number >= block.first && number <= block.last])
    ]
  }

  # A plain scalar stands after a line's start, `: `, `- `, or a flow bracket or comma, and ends at the line's end,
  # before `: `, or before a flow bracket or comma.
  values_scalar_start = "(?:^\\s*|[:,\\[{?-]\\s+|[\\[{,])(?:[!&]\\S+\\s+)*"
  values_scalar_end   = "\\s*(?:$|:(?:\\s|$)|[,\\]}])"
  values_rules = [
    {
      pattern = "${local.values_scalar_start}[-+]?0[0-9_]+${local.values_scalar_end}"
      message = "an unquoted integer with a leading zero, octal to Helm and decimal to Terraform; write it in decimal (0644 is 420) or in quotes (\"0644\")"
    },
    {
      pattern = "${local.values_scalar_start}[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|\\s+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\\.[0-9]*)?\\s*(?:Z|[-+][0-9]{1,2}(?::?[0-9]{2})?)?)?${local.values_scalar_end}"
      message = "an unquoted timestamp, which Terraform rewrites; put it in quotes (\"2024-01-01\")"
    },
    {
      pattern = "${local.values_scalar_start}[-+]?(?:0b[01_]+|0x[0-9a-fA-F]*_[0-9a-fA-F_]*|[1-9][0-9]*_[0-9_]*)${local.values_scalar_end}"
      message = "an unquoted number with _ or 0b, a number to Helm and a string to Terraform; write it in decimal (1000) or in quotes (\"1_000\")"
    },
    {
      pattern = "(?:[:,\\[-]\\s+|^\\s*-\\s+)\\{\\{"
      message = "a Jinja marker without quotes, which YAML reads as a mapping; put it in quotes (\"{{USER_CPU}}\")"
    },
  ]

  values_line_findings = flatten([
    for path, lines in local.values_judged : [
      for line in lines : [
        for rule in local.values_rules : "${path} line ${line.number}: ${rule.message}" if can(regex(rule.pattern, line.line))
      ]
    ]
  ])

  # `---` before the first content opens the one document; any later one begins another.
  values_first_content = {
    for path, lines in local.values_judged : path => min(concat([for line in lines : line.number if !can(regex("^(?:%|---\\s*$)", line.line))], [1000000])...)
  }
  values_document_findings = flatten([
    for path, lines in local.values_judged : [
      for line in lines : "${path} line ${line.number}: a second YAML document, which Helm would leave out; keep one document a file and list the files in osmo_values_files"
      if can(regex("^---(?:\\s|$)", line.line)) && line.number > local.values_first_content[path]
    ]
  ])

  values_text_findings = concat(local.values_document_findings, local.values_line_findings)
  values_syntax_findings = [
    for path, text in local.values_text : "${path} is no YAML mapping that Terraform can read; terraform console <<< 'yamldecode(file(\"${path}\"))' names the place"
    if length(local.values_text_findings) == 0 && length(local.values_judged[path]) > 0 && try(yamldecode(text), "unreadable") != null && !can(keys(yamldecode(text)))
  ]
  values_findings = concat(local.values_text_findings, local.values_syntax_findings)
}
