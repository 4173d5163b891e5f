# Files in an S3 bucket, by upstream's S3_* variables.
class ObjectStore
  class Unavailable < StandardError; end

  class << self
    def put(key, bytes, content_type)
      options = { bucket:, key: full(key), body: bytes, content_type:, cache_control: "public, max-age=315576000, immutable",
                  storage_class: ENV["S3_STORAGE_CLASS"], acl: ENV.fetch("S3_PERMISSION", "public-read").presence }
      client.put_object(**options.compact)
    rescue Seahorse::Client::NetworkingError, Aws::Errors::ServiceError => error
      raise Unavailable, error.message
    end

    def delete(*keys) = keys.each { |key| client.delete_object(bucket:, key: full(key)) }

    def url(key)
      host = ENV["S3_ALIAS_HOST"] || ENV["S3_CLOUDFRONT_HOST"]
      return "https://#{host}/#{full(key)}" if host

      "#{ENV.fetch('S3_PROTOCOL', 'https')}://#{ENV.fetch('S3_HOSTNAME', "s3-#{region}.amazonaws.com")}/#{bucket}/#{full(key)}"
    end

    private

    def bucket = ENV.fetch("S3_BUCKET")
    def region = ENV.fetch("S3_REGION", "us-east-1")
    def full(key) = [ENV["S3_KEY_PREFIX"].presence, key].compact.join("/")

    def client
      @client ||= begin
        require "aws-sdk-s3"
        path_style = ENV.key?("S3_ENDPOINT") && ENV["S3_OVERRIDE_PATH_STYLE"] != "true"
        Aws::S3::Client.new(**{ region:, endpoint: ENV["S3_ENDPOINT"], force_path_style: path_style,
                                http_open_timeout: ENV.fetch("S3_OPEN_TIMEOUT", 5).to_i,
                                http_read_timeout: ENV.fetch("S3_READ_TIMEOUT", 5).to_i,
                                retry_limit: ENV.fetch("S3_RETRY_LIMIT", 0).to_i }.compact)
      end
    end
  end
end
