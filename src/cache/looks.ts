// What values look like, of fields in which requests differ: as if somebody had thought of them, or as if a machine had made
// them for the request. No more than a guess, for advice to people; nothing is decided by it.

/** What values look like. All but PLAIN are odd. */
export const PLAIN = 0
/** Made by a machine: for this request, or as the name of something. */
export const MADE = 1
/** Made for this request, whatever else has it: a time of about now, or of how somebody came by a link. */
export const OF_NOW = 3
export type Kind = typeof PLAIN | typeof MADE | typeof OF_NOW

export const KINDS = 4

/** Parameters that advertisers and their tools add to links. */
export const TRACKING =
  /^(?:utm_\*|gclid|gclsrc|gbraid|wbraid|dclid|fbclid|msclkid|yclid|twclid|ttclid|igshid|mc_cid|mc_eid|_ga|_gl)$/

/** UUIDs, trace ids, long hexadecimal numbers, words of letters and digits with or without a prefix. */
const MADE_BY_MACHINES = [
  /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i,
  /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/,
  /^(?=.*\d)(?=.*[a-f])[0-9a-f]{16,64}$/i,
  /^(?:[a-z]{2,12}[_-])?(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9]{20,64}$/,
]
const MAX_MADE_LENGTH = 80
/** How far the clocks of clients may be off. */
const NOW_MS = 600_000

/** nowMs: wall clock. */
export function looksOf(text: string, nowMs: number): Kind {
  if (text.length < 10 || text.length > MAX_MADE_LENGTH) return PLAIN
  if (/^\d+(?:\.\d+)?$/.test(text)) {
    // A seed may have as many digits, and changes the answer.
    const number = Number(text)
    return isNow(number, nowMs) || isNow(number * 1000, nowMs) ? OF_NOW : PLAIN
  }
  if (/^\d{4}-\d\d-\d\d[T ]\d\d(?::|%3A)\d\d/.test(text)) {
    return isNow(Date.parse(text.replaceAll('%3A', ':')), nowMs) ? OF_NOW : PLAIN
  }
  return MADE_BY_MACHINES.some((pattern) => pattern.test(text)) ? MADE : PLAIN
}

const isNow = (ms: number, nowMs: number): boolean => Math.abs(ms - nowMs) < NOW_MS
