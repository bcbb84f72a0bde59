// What is long or secret goes into a key as a digest: keys are listed on the admin port and kept for long, in other
// processes too. Where instances have a secret, the digests are made with it (HMAC, RFC 2104), so that who reads keys
// without knowing it cannot try out whether they are those of a user or a body that he can guess.

import { createHmac, hash } from 'node:crypto'

/** SHA-256 of a list of texts, in base64url; null is an absent one. Each text carries its length before it, so that no two
 *  lists run together into the same one. The texts are well-formed Unicode. */
export const digestOf = (texts: readonly (string | null)[]): string => hash('sha256', joined(texts), 'base64url')

/** Digests of one purpose. */
export type Digest = typeof digestOf

/** The same, made with a secret; null: with none. */
export const digestWith = (secret: string | null): Digest =>
  secret === null ? digestOf : (texts) => createHmac('sha256', secret).update(joined(texts)).digest('base64url')

/** Fewer characters than any key or token has that is worth stealing. */
const MAX_LEGIBLE_CHARS = 15

/** What is kept of a text that may be a secret and is there to be compared: itself where it is too short for one, which
 *  people like to read, else a digest. */
export const legible = (text: string): string => (text.length > MAX_LEGIBLE_CHARS ? digested(text) : text)

/** A digest in the place of a text. No text is taken for one: as long, it would be a digest itself. */
export const digested = (text: string): string => `#${digestOf([text])}`

const joined = (texts: readonly (string | null)[]): string =>
  texts.map((text) => (text === null ? '-' : `${text.length}:${text}`)).join('')
