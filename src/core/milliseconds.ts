// Milliseconds to the hundredth, as text. Looked up where they are few, as those of a cached hit are: making digits of a
// fraction takes ten times as long.

const KEPT = 1024
const SHORTEST: readonly string[] = Array.from({ length: KEPT }, (_, hundredths) => String(hundredths / 100))

/** With no more digits than it takes: String of what is rounded. */
export function shortestMs(ms: number): string {
  const hundredths = Math.round(ms * 100)
  return SHORTEST[hundredths] ?? String(hundredths / 100)
}
