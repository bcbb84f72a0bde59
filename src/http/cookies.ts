// The Cookie field (RFC 6265 §4.2.1), read strictly: servers disagree about whatever is beyond its grammar (quotes around
// a semicolon, blanks, commas), so a value that one reader finds in it another may not.

import type { HeaderList } from '../core/context.ts'
import { getHeaders, isToken } from './headers.ts'

const VALUE = /^(?:[!#-+\--:<-[\]-~]*|"[!#-+\--:<-[\]-~]*")$/

/** Names and values of all cookies, flat, in order, names repeated as they are; a value keeps its quotes. Null where any
 *  line is not as the grammar has it. */
export function readCookies(headers: HeaderList): readonly string[] | null {
  const cookies: string[] = []
  for (const line of getHeaders(headers, 'cookie')) {
    for (const piece of line.split(';')) {
      const pair = piece.trim()
      const equals = pair.indexOf('=')
      // A semicolon at the end is common, and means nothing to anybody.
      if (pair === '') continue
      const name = pair.slice(0, Math.max(equals, 0))
      const value = pair.slice(equals + 1)
      if (!isToken(name) || !VALUE.test(value)) return null
      cookies.push(name, value)
    }
  }
  return cookies
}

/** The values of one cookie, in order. cookies: as readCookies gives them. */
export const cookieValues = (cookies: readonly string[], name: string): readonly string[] =>
  cookies.filter((_, i) => i % 2 === 1 && cookies[i - 1] === name)
