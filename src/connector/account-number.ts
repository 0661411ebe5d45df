/** Whether a text is the number of a user or group of Linux. 2³² - 1 means "none" in chown(2). */
export const isAccountNumber = (text: string): boolean =>
  /^\d{1,10}$/.test(text) && Number(text) < 2 ** 32 - 1;
