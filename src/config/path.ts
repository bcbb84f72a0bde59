// Where a value stands in the document: a path of keys and indexes, its text in messages, and the value it leads to.

/** Keys and indexes from the root of the document. */
export type Path = readonly (string | number)[]

/** `routes[2].cache.ttl`; a key that is no plain word is quoted: `cache.ttl["200"]`. '' is the root. */
export function formatPath(path: Path): string {
  let text = ''
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`
    else if (!/^[A-Za-z_][\w-]{0,63}$/.test(step)) text += `[${quote(step)}]`
    else text += text === '' ? step : `.${step}`
  }
  return text
}

export const MAX_SHOWN_CHARS = 60

/** The text in quotes, control characters escaped, cut at MAX_SHOWN_CHARS. */
export function quote(text: string): string {
  return JSON.stringify(text.length > MAX_SHOWN_CHARS ? `${text.slice(0, MAX_SHOWN_CHARS)}...` : text)
}

/** True for what YAML calls a mapping. */
export function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The value at `path` of plain data; undefined where there is none. */
export function valueAt(root: unknown, path: Path): unknown {
  let value = root
  for (const step of path) {
    if (Array.isArray(value)) value = (value as readonly unknown[])[Number(step)]
    else value = isMapping(value) && Object.hasOwn(value, step) ? value[step] : undefined
  }
  return value
}
