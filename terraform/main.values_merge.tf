# The merge of the sources in local.merge_sources, as `helm upgrade -f` does it: maps key by key, everything else (lists
# too) replaced by the later source, null takes a key away.
#
# HCL has no recursion, so the merge is written out level by level, to local.merge_depth levels below the pod templates.
# A node is a path (a JSON list of keys) with its texts: the JSON that each source has there, oldest first. Texts and not
# values, because HCL turns the branches of a condition into one type (true ? 1 : "x" is "1"), which would change them.
#
# Down: found_N are the nodes at depth N; nodes_N keeps of their texts the maps after the last text that is no map, or
# that last text alone. A node with one text is taken whole; only one with more texts has children.
# Up: built_N joins the children of a node (parts_N+1, by their parent) to one text again.

locals {
  merge_depth = 8

  nodes_0 = { "[]" = local.merge_sources }

  found_1 = merge([for path, texts in local.nodes_0 : {
    for key in distinct(flatten([for text in texts : keys(jsondecode(text))])) :
    jsonencode(concat(jsondecode(path), [key])) => [for text in texts : jsonencode(jsondecode(text)[key]) if contains(keys(jsondecode(text)), key)]
  } if length(texts) > 1]...)
  nodes_1 = { for path, texts in local.found_1 : path => slice(texts,
    startswith(texts[length(texts) - 1], "{") ? max([for n, text in texts : startswith(text, "{") ? 0 : n + 1]...) : length(texts) - 1,
  length(texts)) }

  found_2 = merge([for path, texts in local.nodes_1 : {
    for key in distinct(flatten([for text in texts : keys(jsondecode(text))])) :
    jsonencode(concat(jsondecode(path), [key])) => [for text in texts : jsonencode(jsondecode(text)[key]) if contains(keys(jsondecode(text)), key)]
  } if length(texts) > 1]...)
  nodes_2 = { for path, texts in local.found_2 : path => slice(texts,
    startswith(texts[length(texts) - 1], "{") ? max([for n, text in texts : startswith(text, "{") ? 0 : n + 1]...) : length(texts) - 1,
  length(texts)) }

  found_3 = merge([for path, texts in local.nodes_2 : {
    for key in distinct(flatten([for text in texts : keys(jsondecode(text))])) :
    jsonencode(concat(jsondecode(path), [key])) => [for text in texts : jsonencode(jsondecode(text)[key]) if contains(keys(jsondecode(text)), key)]
  } if length(texts) > 1]...)
  nodes_3 = { for path, texts in local.found_3 : path => slice(texts,
    startswith(texts[length(texts) - 1], "{") ? max([for n, text in texts : startswith(text, "{") ? 0 : n + 1]...) : length(texts) - 1,
  length(texts)) }

  found_4 = merge([for path, texts in local.nodes_3 : {
    for key in distinct(flatten([for text in texts : keys(jsondecode(text))])) :
    jsonencode(concat(jsondecode(path), [key])) => [for text in texts : jsonencode(jsondecode(text)[key]) if contains(keys(jsondecode(text)), key)]
  } if length(texts) > 1]...)
  nodes_4 = { for path, texts in local.found_4 : path => slice(texts,
    startswith(texts[length(texts) - 1], "{") ? max([for n, text in texts : startswith(text, "{") ? 0 : n + 1]...) : length(texts) - 1,
  length(texts)) }

  found_5 = merge([for path, texts in local.nodes_4 : {
    for key in distinct(flatten([for text in texts : keys(jsondecode(text))])) :
    jsonencode(concat(jsondecode(path), [key])) => [for text in texts : jsonencode(jsondecode(text)[key]) if contains(keys(jsondecode(text)), key)]
  } if length(texts) > 1]...)
  nodes_5 = { for path, texts in local.found_5 : path => slice(texts,
    startswith(texts[length(texts) - 1], "{") ? max([for n, text in texts : startswith(text, "{") ? 0 : n + 1]...) : length(texts) - 1,
  length(texts)) }

  found_6 = merge([for path, texts in local.nodes_5 : {
    for key in distinct(flatten([for text in texts : keys(jsondecode(text))])) :
    jsonencode(concat(jsondecode(path), [key])) => [for text in texts : jsonencode(jsondecode(text)[key]) if contains(keys(jsondecode(text)), key)]
  } if length(texts) > 1]...)
  nodes_6 = { for path, texts in local.found_6 : path => slice(texts,
    startswith(texts[length(texts) - 1], "{") ? max([for n, text in texts : startswith(text, "{") ? 0 : n + 1]...) : length(texts) - 1,
  length(texts)) }

  found_7 = merge([for path, texts in local.nodes_6 : {
    for key in distinct(flatten([for text in texts : keys(jsondecode(text))])) :
    jsonencode(concat(jsondecode(path), [key])) => [for text in texts : jsonencode(jsondecode(text)[key]) if contains(keys(jsondecode(text)), key)]
  } if length(texts) > 1]...)
  nodes_7 = { for path, texts in local.found_7 : path => slice(texts,
    startswith(texts[length(texts) - 1], "{") ? max([for n, text in texts : startswith(text, "{") ? 0 : n + 1]...) : length(texts) - 1,
  length(texts)) }

  found_8 = merge([for path, texts in local.nodes_7 : {
    for key in distinct(flatten([for text in texts : keys(jsondecode(text))])) :
    jsonencode(concat(jsondecode(path), [key])) => [for text in texts : jsonencode(jsondecode(text)[key]) if contains(keys(jsondecode(text)), key)]
  } if length(texts) > 1]...)
  nodes_8 = { for path, texts in local.found_8 : path => slice(texts,
    startswith(texts[length(texts) - 1], "{") ? max([for n, text in texts : startswith(text, "{") ? 0 : n + 1]...) : length(texts) - 1,
  length(texts)) }

  too_deep = [for path, texts in local.nodes_8 : join(".", jsondecode(path)) if length(texts) > 1]
  built_8  = { for path, texts in local.nodes_8 : path => texts[length(texts) - 1] }

  parts_8 = { for path, text in local.built_8 : jsonencode(slice(jsondecode(path), 0, 7)) => "${jsonencode(jsondecode(path)[7])}:${text}"... if text != "null" }
  built_7 = { for path, texts in local.nodes_7 : path => length(texts) == 1 ? texts[0] : "{${join(",", lookup(local.parts_8, path, []))}}" }

  parts_7 = { for path, text in local.built_7 : jsonencode(slice(jsondecode(path), 0, 6)) => "${jsonencode(jsondecode(path)[6])}:${text}"... if text != "null" }
  built_6 = { for path, texts in local.nodes_6 : path => length(texts) == 1 ? texts[0] : "{${join(",", lookup(local.parts_7, path, []))}}" }

  parts_6 = { for path, text in local.built_6 : jsonencode(slice(jsondecode(path), 0, 5)) => "${jsonencode(jsondecode(path)[5])}:${text}"... if text != "null" }
  built_5 = { for path, texts in local.nodes_5 : path => length(texts) == 1 ? texts[0] : "{${join(",", lookup(local.parts_6, path, []))}}" }

  parts_5 = { for path, text in local.built_5 : jsonencode(slice(jsondecode(path), 0, 4)) => "${jsonencode(jsondecode(path)[4])}:${text}"... if text != "null" }
  built_4 = { for path, texts in local.nodes_4 : path => length(texts) == 1 ? texts[0] : "{${join(",", lookup(local.parts_5, path, []))}}" }

  parts_4 = { for path, text in local.built_4 : jsonencode(slice(jsondecode(path), 0, 3)) => "${jsonencode(jsondecode(path)[3])}:${text}"... if text != "null" }
  built_3 = { for path, texts in local.nodes_3 : path => length(texts) == 1 ? texts[0] : "{${join(",", lookup(local.parts_4, path, []))}}" }

  parts_3 = { for path, text in local.built_3 : jsonencode(slice(jsondecode(path), 0, 2)) => "${jsonencode(jsondecode(path)[2])}:${text}"... if text != "null" }
  built_2 = { for path, texts in local.nodes_2 : path => length(texts) == 1 ? texts[0] : "{${join(",", lookup(local.parts_3, path, []))}}" }

  parts_2 = { for path, text in local.built_2 : jsonencode(slice(jsondecode(path), 0, 1)) => "${jsonencode(jsondecode(path)[1])}:${text}"... if text != "null" }
  built_1 = { for path, texts in local.nodes_1 : path => length(texts) == 1 ? texts[0] : "{${join(",", lookup(local.parts_2, path, []))}}" }

  parts_1 = { for path, text in local.built_1 : jsonencode(slice(jsondecode(path), 0, 0)) => "${jsonencode(jsondecode(path)[0])}:${text}"... if text != "null" }
  built_0 = { for path, texts in local.nodes_0 : path => length(texts) == 1 ? texts[0] : "{${join(",", lookup(local.parts_1, path, []))}}" }

  merged_templates = local.built_0["[]"]
}
