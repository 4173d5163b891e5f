class SiteUpload < ApplicationRecord
end
