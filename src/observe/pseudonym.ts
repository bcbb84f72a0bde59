// Users in the log, told apart and not named: a hash, the same for one user in every instance and after every restart.
// It takes some 2 us, so those of the latest users are kept: at least KEPT, at most twice as many, none of them long.

import { hash } from 'node:crypto'

const KEPT = 2048
const MAX_KEPT_CHARS = 256

/** The result takes a user's id and answers 22 letters, digits, `-` and `_`. */
export function createPseudonyms(): (userId: string) => string {
  let recent = new Map<string, string>()
  let earlier = new Map<string, string>()

  return (userId) => {
    const known = recent.get(userId)
    if (known !== undefined) return known
    const name = earlier.get(userId) ?? pseudonym(userId)
    if (userId.length > MAX_KEPT_CHARS) return name
    if (recent.size >= KEPT) {
      earlier = recent
      recent = new Map()
    }
    // A copy: the text may be a slice of a whole header field, which would be kept with it.
    recent.set(` ${userId}`.slice(1), name)
    return name
  }
}

const pseudonym = (userId: string): string => hash('sha256', `user_id ${userId}`, 'base64url').slice(0, 22)
