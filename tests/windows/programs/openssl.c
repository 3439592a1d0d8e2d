/* A small openssl.exe with the libcrypto of the Windows Python: "version", and what the muxer and the lab use of "cms". */
#include <fcntl.h>
#include <io.h>
#include <openssl/cms.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what) {
    char text[256];
    fprintf(stderr, "%s\n", what);
    for (unsigned long code; (code = ERR_get_error()) != 0;) {
        ERR_error_string_n(code, text, sizeof text);
        fprintf(stderr, "%s\n", text);
    }
    return 1;
}

static X509 *read_certificate(const char *path) {
    BIO *file = BIO_new_file(path, "rb");
    X509 *certificate = file ? PEM_read_bio_X509(file, NULL, NULL, NULL) : NULL;
    BIO_free(file);
    return certificate;
}

/* cms -encrypt -binary -stream -aes-256-cbc -outform DER -in FILE CERTIFICATE ...: the result goes to standard output. */
static int encrypt(int count, char **arguments) {
    const char *input = NULL;
    STACK_OF(X509) *recipients = sk_X509_new_null();
    for (int i = 3; i < count; i++) {
        if (!strcmp(arguments[i], "-in") && i + 1 < count) input = arguments[++i];
        else if (!strcmp(arguments[i], "-outform") && i + 1 < count) i++;
        else if (arguments[i][0] != '-') {
            X509 *certificate = read_certificate(arguments[i]);
            if (!certificate) return fail(arguments[i]);
            sk_X509_push(recipients, certificate);
        }
    }
    BIO *source = input ? BIO_new_file(input, "rb") : NULL, *result = BIO_new(BIO_s_mem());
    if (!source) return fail("-in");
    CMS_ContentInfo *message = CMS_encrypt(recipients, source, EVP_aes_256_cbc(), CMS_BINARY | CMS_STREAM);
    if (!message || !i2d_CMS_bio_stream(result, message, source, CMS_BINARY | CMS_STREAM)) return fail("cannot encrypt");
    _setmode(_fileno(stdout), _O_BINARY);
    char buffer[65536];
    for (int got; (got = BIO_read(result, buffer, sizeof buffer)) > 0;) fwrite(buffer, 1, got, stdout);
    return fflush(stdout) != 0;
}

/* cms -decrypt -binary -inform PEM -in ENVELOPE -content FILE -recip CERTIFICATE -inkey KEY -out FILE */
static int decrypt(int count, char **arguments) {
    const char *names[] = {"-in", "-content", "-recip", "-inkey", "-out"}, *values[5] = {0};
    for (int i = 3; i + 1 < count; i++)
        for (int name = 0; name < 5; name++)
            if (!strcmp(arguments[i], names[name])) values[name] = arguments[i + 1];
    for (int name = 0; name < 5; name++)
        if (!values[name]) return fail(names[name]);
    BIO *envelope = BIO_new_file(values[0], "rb"), *content = BIO_new_file(values[1], "rb");
    BIO *key_file = BIO_new_file(values[3], "rb"), *result = BIO_new_file(values[4], "wb");
    if (!envelope || !content || !key_file || !result) return fail("a file cannot be opened");
    CMS_ContentInfo *message = PEM_read_bio_CMS(envelope, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_file, NULL, NULL, NULL);
    X509 *certificate = read_certificate(values[2]);
    if (!message || !key || !certificate) return fail("a file cannot be read");
    if (!CMS_decrypt(message, key, certificate, content, result, CMS_BINARY)) return fail("cannot decrypt");
    return BIO_flush(result) != 1;
}

int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "version")) return puts(OpenSSL_version(OPENSSL_VERSION)) < 0;
    if (count > 2 && !strcmp(arguments[1], "cms") && !strcmp(arguments[2], "-encrypt")) return encrypt(count, arguments);
    if (count > 2 && !strcmp(arguments[1], "cms") && !strcmp(arguments[2], "-decrypt")) return decrypt(count, arguments);
    return fail("this openssl knows only version, cms -encrypt and cms -decrypt");
}
