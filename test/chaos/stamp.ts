// What an origin puts into its answers, and what a client makes of it: for whom the answer was, and whether it is whole.

export const END = '\nEND'

/** What an answer is about. */
export interface Stamp {
  readonly path: string
  readonly id: string
  readonly user: string
}

/** One line. */
export const stampOf = (stamp: Stamp): string => JSON.stringify(stamp)

/** bytes: of what stands between the stamp and the end. */
export const bodyOf = (stamp: string, bytes: number): string => `${stamp}\n${'x'.repeat(bytes)}${END}`

/** What a body says; null where it has not even a whole first line. */
export function readStamp(body: string): Stamp | null {
  const end = body.indexOf('\n')
  if (end === -1) return null
  try {
    return JSON.parse(body.slice(0, end)) as Stamp
  } catch {
    return null
  }
}
