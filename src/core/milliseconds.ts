// Milliseconds to the hundredth, as text: a client reads them in X-Process-Time, an operator in the log. Looked up where
// they are few, as those of a cached hit are: making digits of a fraction takes ten times as long.

const KEPT = 1024
const FIXED: readonly string[] = Array.from({ length: KEPT }, (_, hundredths) => (hundredths / 100).toFixed(2))
const SHORTEST: readonly string[] = Array.from({ length: KEPT }, (_, hundredths) => String(hundredths / 100))

/** With two digits after the point: ms.toFixed(2). */
export function fixedMs(ms: number): string {
  const scaled = ms * 100
  const hundredths = Math.round(scaled)
  // The product is rounded, and toFixed is exact: what is about half way is left to it.
  const isSure = ms >= 0 && Math.abs(scaled - hundredths) < 0.499_999
  return (isSure ? FIXED[hundredths] : undefined) ?? ms.toFixed(2)
}

/** With no more digits than it takes: String of what is rounded. */
export function shortestMs(ms: number): string {
  const hundredths = Math.round(ms * 100)
  return SHORTEST[hundredths] ?? String(hundredths / 100)
}
